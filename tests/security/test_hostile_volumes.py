"""A volume that a hostile guest has filled, seen from this side: nothing outside of it is read or written, nothing blocks."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from microsandbox import (
    FilesystemError,
    FsEntryKind,
    InvalidConfigError,
    MicrosandboxError,
    Patch,
    Sandbox,
    Volume,
)
from pace import amount, within

Make = Callable[..., Awaitable[Any]]


@pytest.fixture
async def shared(make: Make, local: Any) -> AsyncIterator[tuple[Any, Any]]:
    """A sandbox, and the volume that it has at /v."""
    volume = await Volume.create("shared", backend=local)
    box = await make(volumes={"/v": Volume.named("shared")})
    yield box, volume
    await box.kill()
    await Volume.remove("shared", backend=local)


@pytest.mark.hazard("V3")
async def test_links_lead_nowhere_outside(shared: tuple[Any, Any], tmp_path: Path) -> None:
    box, volume = shared
    secret = tmp_path / "host-secret"
    secret.write_bytes(b"of the host only")
    done = await box.shell(
        f"cd /v; ln -s {secret} abs; ln -s ../../../../../../..{secret} up; ln -s / root; ln -s /proc/self/root magic; "
        f"ln -s loop loop; mkdir d; echo -n in > d/file; ln -s d/file good; ln -s {tmp_path} dir"
    )
    assert done.exit_code == 0, done.stderr_text
    fs = volume.fs
    for path in ("abs", "up", f"root{secret}", f"magic{secret}", "loop", "dir/host-secret"):
        for call in (fs.read(path), fs.stat(path), fs.copy(path, "copied")):
            with pytest.raises(FilesystemError):
                await call
    assert await fs.read("good") == b"in"
    # Writing takes the place of a link; where the way leads through one, it is refused.
    await fs.write("abs", b"replaced")
    assert await fs.read("abs") == b"replaced"
    for path in ("dir/new", f"root{tmp_path}/new"):
        with pytest.raises(FilesystemError):
            await fs.write(path, b"x")
        with pytest.raises(FilesystemError):
            await fs.mkdir(path)
    with pytest.raises(FilesystemError):
        await fs.rename("d/file", "dir/moved")
    await fs.remove_file("dir")
    await fs.remove_dir("d")
    assert secret.read_bytes() == b"of the host only"
    assert os.listdir(tmp_path) == ["host-secret"]


async def test_removing_a_tree_follows_no_link(shared: tuple[Any, Any], tmp_path: Path) -> None:
    box, volume = shared
    (tmp_path / "kept").write_bytes(b"x")
    assert (await box.shell(f"mkdir -p /v/t/u; ln -s {tmp_path} /v/t/u/out; ln -s {tmp_path} /v/t/out")).exit_code == 0
    await volume.fs.remove_dir("t")
    assert await volume.fs.list("") == []
    assert (tmp_path / "kept").read_bytes() == b"x"


async def test_nothing_blocks_on_what_is_no_file(shared: tuple[Any, Any]) -> None:
    box, volume = shared
    code = "import socket; socket.socket(socket.AF_UNIX).bind('/v/socket')"
    done = await box.shell(f'mkfifo /v/fifo && (python3 -c "{code}" || true); mknod /v/null c 1 3; ls /v')
    assert "fifo" in done.stdout_text
    assert "null" not in done.stdout_text, "a guest makes no devices"
    kinds = {entry.path: entry.kind for entry in await volume.fs.list("")}
    assert kinds["fifo"] is FsEntryKind.OTHER
    async with asyncio.timeout(within(10)):
        for name in kinds:
            for call in (volume.fs.read(name), volume.fs.copy(name, "copied")):
                with pytest.raises(FilesystemError, match="regular"):
                    await call
        # A write replaces it without opening it.
        await volume.fs.write("fifo", b"now a file")
    assert await volume.fs.read("fifo") == b"now a file"


async def test_a_setuid_file_is_nobodys_here(shared: tuple[Any, Any]) -> None:
    box, volume = shared
    done = await box.shell("cp /bin/true /v/suid && chmod 6755 /v/suid && stat -c %a /v/suid")
    assert done.stdout_text == "6755\n"
    found = Path(volume.path, "suid").stat()
    assert found.st_uid not in (0, os.getuid()) or os.getuid() != 0
    await volume.fs.copy("suid", "copied")
    assert Path(volume.path, "copied").stat().st_mode & (stat.S_ISUID | stat.S_ISGID) == 0
    # Nor do they count inside: the mount says so.
    assert "nosuid" in (await box.shell("grep ' /v ' /proc/self/mounts")).stdout_text


FLIP = """
import os
os.makedirs("/v/real", exist_ok=True)
open("/v/real/host-secret", "w").write("inside")
os.symlink("{outside}", "/v/link")
os.rename("/v/real", "/v/place")
open("/v/started", "w").close()
while True:
    os.rename("/v/place", "/v/real"); os.rename("/v/link", "/v/place")
    os.rename("/v/place", "/v/link"); os.rename("/v/real", "/v/place")
"""


@pytest.mark.hazard("V3")
@pytest.mark.soak
@pytest.mark.timeout(amount(120, 3600))
async def test_a_directory_that_becomes_a_link_and_back(shared: tuple[Any, Any], tmp_path: Path) -> None:
    box, volume = shared
    (tmp_path / "host-secret").write_bytes(b"of the host only")
    await box.fs.write("/tmp/flip.py", FLIP.format(outside=tmp_path).encode())
    flipping = await box.exec_stream("python3", ["/tmp/flip.py"])
    async with asyncio.timeout(within(20)):
        while not await volume.fs.exists("started"):
            await asyncio.sleep(0.01)
    inside = refused = 0
    for number in range(amount(600, 100_000)):
        try:
            assert await volume.fs.read("place/host-secret") == b"inside"
            await volume.fs.write(f"place/new-{number % 8}", b"x")
            inside += 1
        except MicrosandboxError:
            refused += 1
    await flipping.kill()
    assert inside > 0 and refused > 0, (inside, refused)
    assert os.listdir(tmp_path) == ["host-secret"]


async def test_a_tree_changes_while_it_is_removed(shared: tuple[Any, Any], tmp_path: Path) -> None:
    box, volume = shared
    (tmp_path / "kept").write_bytes(b"x")
    busy = await box.exec_stream(
        "sh",
        [
            "-c",
            f"while :; do mkdir -p /v/t/a/b; ln -sfn {tmp_path} /v/t/a/b/l; rm -rf /v/t/a; ln -s {tmp_path} /v/t/a; rm -f /v/t/a; done",
        ],
    )
    for _ in range(40):
        try:
            await volume.fs.remove_dir("t")
        except MicrosandboxError:
            continue
    await busy.kill()
    assert (tmp_path / "kept").read_bytes() == b"x"


async def test_a_deep_and_sparse_volume_can_be_looked_at_and_removed(make: Make, local: Any) -> None:
    volume = await Volume.create("deep", backend=local)
    box = await make(volumes={"/v": Volume.named("deep")})
    code = (
        "import os\nos.chdir('/v')\n"
        "for n in range(600):\n os.mkdir('d'); os.chdir('d')\n"
        "os.chdir('/v')\n"
        "for n in range(4):\n f = open(f's{n}', 'w'); f.truncate(2**62 if n else 10)\n"
    )
    await box.fs.write("/tmp/deep.py", code.encode())
    await box.shell("python3 /tmp/deep.py")
    assert (await Volume.get("deep", backend=local)).used_bytes >= 0
    await box.kill()
    await Volume.remove("deep", backend=local)
    assert not Path(volume.path).exists()


@pytest.mark.hazard("A7")
async def test_the_products_own_state_is_no_mount_source(local: Any, home: Path, tmp_path: Path) -> None:
    await Volume.create("data", backend=local)
    link = tmp_path / "link"
    link.symlink_to(home / "db")
    for source in (home, home / "db", home / "volumes" / "data", home.parent, Path("/"), link):
        with pytest.raises(InvalidConfigError, match="is inside, the state directory"):
            await Sandbox.create("box", image="host", volumes={"/v": Volume.bind(str(source))}, backend=local)
    assert (await Sandbox.list(backend=local)).sandboxes == []
    await Volume.remove("data", backend=local)


@pytest.mark.hazard("A7")
async def test_a_link_of_a_guest_is_no_mount_source(make: Make, local: Any, tmp_path: Path) -> None:
    """M2: a guest that may write to a directory puts links there for whoever mounts, copies or boots what is in it later."""
    secret, work = tmp_path / "secret", tmp_path / "work"
    (secret / "bin").mkdir(parents=True)
    (secret / "name").write_bytes(b"of the host only")
    (work / "data").mkdir(parents=True)
    first = await make("first", volumes={"/work": Volume.bind(str(work))})
    done = await first.shell(
        f"cd /work && rmdir data && ln -s {secret} data && ln -s ../secret relative && mkdir own && ln -s own inner && mkfifo fifo"
    )
    assert done.exit_code == 0, done.stderr_text
    other = await make("other")

    async def none_is_followed() -> None:
        for link in ("data", "relative"):
            for options in ({"volumes": {"/d": Volume.bind(str(work / link))}}, {"image": str(work / link)}):
                with pytest.raises(InvalidConfigError, match=f"leads out of {work}, .* name the path"):
                    await make("second", **options)
            with pytest.raises(FilesystemError, match=f"leads out of {work}, .* name the path"):
                await other.fs.copy_from_host(work / link / "name", "/tmp/name")
            with pytest.raises(FilesystemError, match=f"leads out of {work}, .* name the path"):
                await other.fs.copy_to_host("/etc/hostname", work / link / "hostname")
            with pytest.raises(MicrosandboxError):
                await make("second", patches=[Patch.copy_dir(work / link, "/srv/data")])
        assert not await other.fs.exists("/tmp/name")
        assert sorted(os.listdir(secret)) == ["bin", "name"]

    await none_is_followed()
    # Nor does a copy wait for the other end of a guest's fifo.
    with pytest.raises(MicrosandboxError):
        await asyncio.wait_for(other.fs.copy_from_host(work / "fifo", "/tmp/fifo"), within(20))
    # The link is still there when its sandbox is not.
    await first.destroy(force=True)
    await none_is_followed()
    second = await make("second", volumes={"/d": Volume.bind(str(work / "inner")), "/s": Volume.bind(str(secret))})
    assert (await second.shell("touch /d/made && cat /s/name")).stdout_bytes == b"of the host only"
    assert (work / "own" / "made").exists()


@pytest.mark.hazard("V2")
async def test_racing_creations_and_removals_leave_one_state(local: Any, home: Path) -> None:
    from microsandbox import VolumeAlreadyExistsError, VolumeNotFoundError

    for _ in range(5):
        made = await asyncio.gather(*(Volume.create("one", backend=local) for _ in range(6)), return_exceptions=True)
        assert sum(not isinstance(each, BaseException) for each in made) == 1, made
        assert all(isinstance(e, VolumeAlreadyExistsError) for e in made if isinstance(e, BaseException)), made
        gone = await asyncio.gather(
            *(Volume.remove("one", backend=local) for _ in range(3)),
            *(Volume.get("one", backend=local) for _ in range(6)),
            Volume.list(backend=local),
            return_exceptions=True,
        )
        errors = [each for each in gone if isinstance(each, BaseException)]
        assert all(isinstance(each, VolumeNotFoundError) for each in errors), gone
        assert sum(each is None for each in gone) == 1, gone
        assert os.listdir(home / "volumes") == []


async def test_a_write_that_was_given_up_does_not_pass_for_whole(local: Any) -> None:
    volume = await Volume.create("cut", backend=local)
    sink = await volume.fs.write_stream("f")
    await sink.write(b"a")
    # More than any machine writes before the cancellation arrives.
    task = asyncio.ensure_future(sink.write(bytes(1 << 30)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(MicrosandboxError, match="given up"):
        await sink.close()
    # The step whose result was given up ends later, and removes its temporary file.
    async with asyncio.timeout(within(60)):
        while await volume.fs.list(""):
            await asyncio.sleep(0.01)
    await Volume.remove("cut", backend=local)
