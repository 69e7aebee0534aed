"""Volumes, their files from outside, and mounts: the same on every backend that has them."""

from __future__ import annotations

import asyncio
import io
import json
import os
import stat
import tarfile
from pathlib import Path

import pytest
from backends import Harness
from microsandbox import (
    BootStartError,
    ExecFailedError,
    FilesystemError,
    FsEntryKind,
    HostPermissions,
    InvalidConfigError,
    InvalidStateError,
    PathNotFoundError,
    Sandbox,
    UnsupportedError,
    Volume,
    VolumeAlreadyExistsError,
    VolumeInUseError,
    VolumeKind,
    VolumeNotFoundError,
)
from pace import within


async def test_a_volume_is_made_found_listed_and_removed(harness: Harness) -> None:
    made = await Volume.create("data", labels={"team": "red"}, backend=harness.backend)
    assert made.name == "data"
    handle = await Volume.get("data", backend=harness.backend)
    assert (handle.name, handle.kind, handle.is_default) == ("data", VolumeKind.DIRECTORY, False)
    assert handle.labels == {"team": "red"} and handle.used_bytes == 0
    assert handle.created_at is not None and handle.created_at > 1.6e12
    await Volume.create("more", backend=harness.backend)
    assert [v.name for v in await Volume.list(backend=harness.backend)] == ["data", "more"]
    await handle.remove()
    await Volume.remove("more", backend=harness.backend)
    assert await Volume.list(backend=harness.backend) == []


async def test_files_of_a_volume_are_listed_and_read_in_limits(harness: Harness) -> None:
    volume = await Volume.create("data", backend=harness.backend)
    await volume.fs.mkdir("d")
    for name in ("d/b", "d/a"):
        await volume.fs.write(name, b"four")
    assert sorted([entry.path async for entry in await volume.fs.list_stream("d")]) == ["d/a", "d/b"]
    assert await volume.fs.read_text("d/a", max_bytes=4) == "four"
    for call in (volume.fs.read("d/a", max_bytes=3), volume.fs.read_text("d/a", max_bytes=3)):
        with pytest.raises(FilesystemError, match="more than 3 bytes"):
            await call
    await Volume.remove("data", backend=harness.backend)


async def test_names_that_are_taken_absent_or_impossible(harness: Harness) -> None:
    await Volume.create("data", backend=harness.backend)
    with pytest.raises(VolumeAlreadyExistsError, match="data"):
        await Volume.create("data", backend=harness.backend)
    for call in (Volume.get, Volume.remove):
        with pytest.raises(VolumeNotFoundError, match="absent"):
            await call("absent", backend=harness.backend)
    for name in ("", "../x", "a/b", ".hidden", "-x", "x" * 129):
        with pytest.raises(InvalidConfigError):
            await Volume.create(name, backend=harness.backend)
    await Volume.remove("data", backend=harness.backend)


async def test_what_cannot_be_kept_is_refused(harness: Harness) -> None:
    with pytest.raises(UnsupportedError):
        await Volume.create("disk", kind=VolumeKind.DISK, size_mib=1024, backend=harness.backend)
    with pytest.raises(UnsupportedError):
        await Volume.create("bounded", quota_mib=1024, backend=harness.backend)
    assert await Volume.list(backend=harness.backend) == []


async def test_every_call_on_files(harness: Harness) -> None:
    volume = await Volume.create("files", backend=harness.backend)
    fs = volume.fs
    await fs.mkdir("a/b")
    await fs.mkdir("a/b")
    await fs.write("a/b/one", b"first")
    assert await fs.read("a/b/one") == b"first"
    await fs.write("a/b/one", "zweite é".encode())
    assert await fs.read_text("a/b/one") == "zweite é"
    await fs.write("a/empty", b"")
    assert await fs.read("a/empty") == b""
    assert [(e.path, e.kind) for e in await fs.list("a")] == [
        ("a/b", FsEntryKind.DIRECTORY),
        ("a/empty", FsEntryKind.FILE),
    ]
    assert [e.path for e in await fs.list("")] == ["a"]
    found = await fs.stat("a/b/one")
    assert found.kind is FsEntryKind.FILE and found.size == len("zweite é".encode()) and not found.readonly
    await fs.copy("a/b/one", "a/two")
    await fs.rename("a/two", "a/three")
    assert await fs.read_text("/a/three") == "zweite é"
    assert await fs.exists("a/three") and not await fs.exists("a/two") and not await fs.exists("a/empty/x")
    await fs.remove_file("a/three")
    await fs.remove_dir("a")
    assert await fs.list("") == []
    for call in (fs.read("gone"), fs.stat("gone"), fs.list("gone"), fs.remove_file("gone"), fs.write("no/dir", b"x")):
        with pytest.raises(PathNotFoundError):
            await call
    await Volume.remove("files", backend=harness.backend)


async def test_streams_both_ways(harness: Harness) -> None:
    volume = await Volume.create("streams", backend=harness.backend)
    block = os.urandom(1 << 20)
    async with await volume.fs.write_stream("big") as sink:
        for _ in range(5):
            await sink.write(block)
        assert not await volume.fs.exists("big")
    got = b"".join([piece async for piece in await volume.fs.read_stream("big")])
    assert got == block * 5
    handle = await Volume.get("streams", backend=harness.backend)
    assert handle.used_bytes == 5 << 20
    await handle.remove()


async def test_a_stream_that_ends_in_an_error_changes_nothing(harness: Harness) -> None:
    volume = await Volume.create("half", backend=harness.backend)
    box = await harness.create("box")
    for fs, path in ((volume.fs, "f"), (box.fs, "/tmp/f")):
        await fs.write(path, b"before")
        with pytest.raises(ZeroDivisionError):
            async with await fs.write_stream(path) as sink:
                await sink.write(b"half of it")
                raise ZeroDivisionError
        assert await fs.read(path) == b"before"
        for call in (sink.write(b"more"), sink.close()):
            with pytest.raises(InvalidStateError, match="abandoned"):
                await call
        async with await fs.write_stream(path) as sink:
            await sink.write(b"after")
        assert await fs.read(path) == b"after"
    await Volume.remove("half", backend=harness.backend)


@pytest.mark.parametrize("path", ["..", "../x", "a/../../x", "/../x"])
async def test_nothing_above_the_root(harness: Harness, path: str) -> None:
    volume = await Volume.create("walls", backend=harness.backend)
    await volume.fs.mkdir("a")
    for call in (volume.fs.read(path), volume.fs.write(path, b"x"), volume.fs.list(path), volume.fs.remove_dir(path)):
        with pytest.raises((FilesystemError, InvalidConfigError)):
            await call
    await Volume.remove("walls", backend=harness.backend)


@pytest.mark.hazard("V1")
@pytest.mark.needs("mounts")
async def test_what_one_sandbox_writes_another_reads(harness: Harness) -> None:
    volume = await Volume.create("shared", backend=harness.backend)
    await volume.fs.write("in.txt", b"from outside")
    first = await harness.create("first", volumes={"/data": Volume.named("shared")})
    done = await first.shell(
        "cat /data/in.txt && echo 'from inside' > /data/out.txt && id -u > /data/uid && mkdir /data/d"
    )
    assert (done.exit_code, done.stdout_text) == (0, "from outside")
    assert await volume.fs.read_text("out.txt") == "from inside\n"
    assert await first.fs.read_text("/data/out.txt") == "from inside\n"
    await first.stop()
    second = await harness.create("second", volumes={"/mnt/deep": Volume.named("shared", readonly=True)})
    assert (await second.shell("cat /mnt/deep/out.txt")).stdout_text == "from inside\n"
    refused = await second.shell("echo x > /mnt/deep/new; mount -o remount,rw /mnt/deep; touch /mnt/deep/new")
    assert refused.exit_code != 0
    assert not await volume.fs.exists("new")
    await second.stop()
    await Volume.remove("shared", backend=harness.backend)


@pytest.mark.hazard("V2")
@pytest.mark.needs("mounts")
async def test_a_volume_in_use_is_not_removed(harness: Harness) -> None:
    await Volume.create("held", backend=harness.backend)
    box = await harness.create("holder", volumes={"/data": Volume.named("held")})
    with pytest.raises(VolumeInUseError, match="holder"):
        await Volume.remove("held", backend=harness.backend)
    await box.fs.write("/data/kept", b"1")
    await box.stop()
    again = await Sandbox.start("holder", backend=harness.backend)
    assert await again.fs.read("/data/kept") == b"1"
    with pytest.raises(VolumeInUseError):
        await Volume.remove("held", backend=harness.backend)
    await again.stop()
    await Volume.remove("held", backend=harness.backend)
    with pytest.raises(VolumeNotFoundError, match="held"):
        await Sandbox.start("holder", backend=harness.backend)


@pytest.mark.needs("mounts")
async def test_an_absent_volume_is_refused_before_anything_is_made(harness: Harness) -> None:
    with pytest.raises(VolumeNotFoundError, match="absent"):
        await harness.create("box", volumes={"/data": Volume.named("absent")})
    assert (await Sandbox.list(backend=harness.backend)).sandboxes == []


@pytest.mark.needs("mounts")
async def test_memory_with_a_size(harness: Harness) -> None:
    box = await harness.create("box", volumes={"/scratch": Volume.tmpfs(size_mib=4)})
    done = await box.shell(
        "head -c 2000000 /dev/zero > /scratch/a && ! head -c 8000000 /dev/zero > /scratch/b; df -P /scratch"
    )
    assert "/scratch" in done.stdout_text
    assert (await box.fs.stat("/scratch/a")).size == 2_000_000
    assert (await box.fs.stat("/scratch/b")).size < 4 << 20


@pytest.mark.hazard("A6")
@pytest.mark.needs("mounts")
async def test_no_mount_lands_on_what_the_sandbox_is_made_of(harness: Harness) -> None:
    """A guest makes a link on the way to the place of its own mount, which then leads to `/proc` at the next start."""
    await Volume.create("inner", backend=harness.backend)
    box = await harness.create("box", volumes={"/a/proc": Volume.named("inner")})
    done = await box.shell("mv /a /moved && ln -s / /a")
    assert done.exit_code == 0, done.stderr_text
    await box.stop()
    with pytest.raises(BootStartError) as caught:
        await Sandbox.start("box", backend=harness.backend)
    if harness.kind != "cloud":
        assert "lead to /proc, which belongs to the sandbox itself" in str(caught.value)
    await Sandbox.remove("box", backend=harness.backend)
    await Volume.remove("inner", backend=harness.backend)


@pytest.mark.needs("mounts")
async def test_zeros_need_room_as_other_data_does(harness: Harness) -> None:
    box = await harness.create("box", volumes={"/scratch": Volume.tmpfs(size_mib=8)})
    with pytest.raises(FilesystemError, match="No space left"):
        await box.fs.write("/scratch/zeros", bytes(64 << 20))
    assert not await box.fs.exists("/scratch/zeros")
    await box.fs.write("/scratch/fits", bytes(4 << 20))
    assert (await box.fs.stat("/scratch/fits")).size == 4 << 20


@pytest.mark.needs("mounts")
async def test_a_mount_within_memory_is_seen_or_refused(harness: Harness) -> None:
    volume = await Volume.create("inner", backend=harness.backend)
    await volume.fs.write("f", b"seen")
    mounts = {
        "/scratch": Volume.tmpfs(size_mib=4),
        "/scratch/v": Volume.named("inner"),
        "/tmp/v": Volume.named("inner"),
    }
    try:
        box = await harness.create("box", volumes=mounts)
    except UnsupportedError as error:
        assert "within the tmpfs" in str(error)
        assert (await Sandbox.list(backend=harness.backend)).sandboxes == []
    else:
        assert (await box.shell("cat /scratch/v/f /tmp/v/f")).stdout_text == "seenseen"
        await box.stop()
    await Volume.remove("inner", backend=harness.backend)


@pytest.mark.needs("host_paths")
async def test_no_mount_point_is_made_in_a_bound_directory(harness: Harness, tmp_path: Path) -> None:
    (tmp_path / "mine" / "place").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "f").write_text("seen")
    mine, other = Volume.bind(str(tmp_path / "mine")), Volume.bind(str(tmp_path / "other"))
    for inner in (other, Volume.tmpfs(size_mib=4)):
        with pytest.raises(InvalidConfigError, match="has no missing/place: make it there first"):
            await harness.create("box", volumes={"/data": mine, "/data/missing/place": inner})
    assert (await Sandbox.list(backend=harness.backend)).sandboxes == []
    box = await harness.create("box", volumes={"/data": mine, "/data/place": other})
    assert (await box.shell("cat /data/place/f")).stdout_text == "seen"
    assert [path.name for path in (tmp_path / "mine").rglob("*")] == ["place"]


@pytest.mark.needs("mounts")
async def test_noexec_is_kept_or_refused(harness: Harness) -> None:
    await Volume.create("plain", backend=harness.backend)
    try:
        box = await harness.create("box", volumes={"/data": Volume.named("plain", noexec=True)})
    except UnsupportedError as error:
        assert "noexec of the mount at /data" in str(error)
        assert (await Sandbox.list(backend=harness.backend)).sandboxes == []
    else:
        done = await box.shell("printf '#!/bin/sh\necho ran' > /data/p && chmod 755 /data/p && /data/p")
        assert done.exit_code == 126 and "ran" not in done.stdout_text
        await box.stop()
    await Volume.remove("plain", backend=harness.backend)


@pytest.mark.needs("mounts")
async def test_many_writers_and_one_volume(harness: Harness) -> None:
    volume = await Volume.create("many", backend=harness.backend)
    boxes = [await harness.create(f"w{n}", volumes={"/data": Volume.named("many")}, memory=128) for n in range(3)]
    await asyncio.gather(
        *(b.shell(f"for i in 1 2 3 4 5; do echo {n} > /data/{n}-$i; done") for n, b in enumerate(boxes))
    )
    assert len(await volume.fs.list("")) == 15
    for box in boxes:
        await box.stop()
    await Volume.remove("many", backend=harness.backend)


@pytest.mark.needs("host_paths")
async def test_a_host_directory_is_live_both_ways(harness: Harness, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("hello")
    tmp_path.chmod(0o755)
    box = await harness.create(
        "box", volumes={"/host": Volume.bind(str(tmp_path)), "/ro": Volume.bind(str(tmp_path), readonly=True)}
    )
    assert (await box.shell("cat /host/in; echo back > /host/out")).stdout_text == "hello"
    assert (tmp_path / "out").read_text() == "back\n"
    assert (tmp_path / "out").stat().st_uid == os.getuid()
    assert (await box.shell("touch /ro/x")).exit_code != 0
    assert sorted(os.listdir(tmp_path)) == ["in", "out"]


@pytest.mark.hazard("V5")
@pytest.mark.needs("host_paths")
async def test_what_the_host_changes_shows_in_a_read_only_bind(harness: Harness, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "replaced").write_text("old ")
    (tmp_path / "removed").write_text("there")
    box = await harness.create("box", volumes={"/ro": Volume.bind(str(tmp_path), readonly=True)})
    # Each name has been looked for before it changes.
    script = "cd /ro; cat replaced removed made dir/deep 2> /dev/null"
    assert (await box.shell(script)).stdout_text == "old there"
    (tmp_path / "new").write_text("new ")
    os.replace(tmp_path / "new", tmp_path / "replaced")
    (tmp_path / "removed").unlink()
    (tmp_path / "made").write_text("made ")
    (tmp_path / "dir" / "deep").write_text("deep")
    seen = ""
    async with asyncio.timeout(within(20)):
        while seen != "new made deep":
            seen = (await box.shell(script)).stdout_text
    assert (await box.shell("ls /ro")).stdout_text.split() == ["dir", "made", "replaced"]
    # Content that changes in place needs no name; the kernel of a microVM may know the old size for a moment.
    (tmp_path / "replaced").write_text("in place")
    async with asyncio.timeout(within(20)):
        while seen != "in place":
            seen = (await box.shell("cat /ro/replaced")).stdout_text


def set_ids(directory: Path) -> list[str]:
    """Names of files with a set-id bit."""
    return sorted(p.name for p in directory.rglob("*") if p.lstat().st_mode & (stat.S_ISUID | stat.S_ISGID))


CREATE = """
import errno, os
for call in (
    lambda: os.open("/host/opened", os.O_CREAT | os.O_WRONLY, 0o4755),
    lambda: os.open("/host", os.O_TMPFILE | os.O_WRONLY, 0o2755),
    lambda: os.mknod("/host/made", 0o106755),
    lambda: os.chmod("/host/tool", 0o4755),
    lambda: os.fchmod(os.open("/host/tool", os.O_RDONLY), 0o2755),
):
    try:
        call()
    except OSError as error:
        # Files without a name are not known everywhere.
        print("refused" if error.errno in (errno.EPERM, errno.EOPNOTSUPP) else error)
"""


@pytest.mark.needs("host_paths")
async def test_no_file_of_this_machine_gets_a_set_id_bit(harness: Harness, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    box = await harness.create("box", volumes={"/host": Volume.bind(str(tmp_path))})
    await box.shell("cp /bin/true /host/tool")
    assert not (await box.shell("chmod u+s /host/tool || install -m 6755 /bin/true /host/other")).success
    tried = await box.exec("python3", ["-c", CREATE])
    assert tried.stdout_text.split() == ["refused"] * 5, tried.stderr_text
    with pytest.raises(FilesystemError):
        await box.fs.chmod("/host/tool", 0o4755)
    # An archive is unpacked without them.
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("packed")
        member.mode, member.size = 0o4755, 1
        tar.addfile(member, io.BytesIO(b"x"))
    async with await box.fs.write_tar("/host") as sink:
        await sink.write(archive.getvalue())
    assert (tmp_path / "packed").stat().st_mode & 0o7777 == 0o755
    assert set_ids(tmp_path) == []
    # Every other mode goes, paths are resolved as ever, and what cannot be executed is explained.
    await box.fs.write("/host/script", b"#!/no/such/interpreter\n")
    await box.fs.chmod("/host/script", 0o755)
    with pytest.raises(ExecFailedError, match="its interpreter `/no/such/interpreter` does not"):
        await box.exec("./script", cwd="/host")
    assert (await box.shell("chmod 1777 /host/tool && stat -c %a /host/tool")).stdout_text == "1777\n"
    assert (await box.fs.stat("/host/../host/tool")).mode & 0o7777 == 0o1777


@pytest.mark.needs("host_paths")
async def test_set_id_bits_only_where_requested_or_harmless(harness: Harness, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    mirrored = {"/host": Volume.bind(str(tmp_path), host_permissions=HostPermissions.MIRROR)}
    box = await harness.create("box", volumes=mirrored)
    assert (await box.shell("cp /bin/true /host/tool && chmod 6755 /host/tool")).success
    assert set_ids(tmp_path) == ["tool"]
    await box.stop()
    (tmp_path / "tool").unlink()
    only_read = await harness.create("reader", volumes={"/host": Volume.bind(str(tmp_path), readonly=True)})
    assert (await only_read.shell("cp /bin/true /tmp/tool && chmod 6755 /tmp/tool")).success


@pytest.mark.needs("host_paths")
async def test_a_directory_is_shown_as_that_of_another_user(harness: Harness, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "in").write_text("hello")
    box = await harness.create("box", volumes={"/host": Volume.bind(str(tmp_path), uid=1234, gid=567)}, user="1234:567")
    assert (await box.shell("stat -c %u:%g /host /host/in; echo back > /host/out")).stdout_text == "1234:567\n" * 2
    made = (tmp_path / "out").stat()
    assert ((tmp_path / "out").read_text(), made.st_uid, made.st_gid) == ("back\n", os.getuid(), os.getgid())
    for ids in ({"uid": 70_000, "gid": 0}, {"uid": 0, "gid": 70_000}):
        with pytest.raises(InvalidConfigError, match="0 to 65535"):
            await harness.create("bad", volumes={"/host": Volume.bind(str(tmp_path), **ids)})


@pytest.mark.needs("mounts")
async def test_flags_of_memory_are_kept(harness: Harness) -> None:
    volumes = {"/ro": Volume.tmpfs(size_mib=8, readonly=True), "/data": Volume.tmpfs(size_mib=8, noexec=True)}
    box = await harness.create("box", volumes=volumes)
    assert not (await box.shell("touch /ro/x")).success
    assert (await box.shell("cp /bin/true /data/t && chmod 755 /data/t && /data/t")).exit_code == 126
    mounts = (await box.exec("cat", ["/proc/self/mounts"])).stdout_text
    flags = {line.split()[1]: set(line.split()[3].split(",")) for line in mounts.splitlines()}
    assert {"ro", "nosuid", "nodev"} <= flags["/ro"] and {"rw", "noexec", "nosuid", "nodev"} <= flags["/data"]


@pytest.mark.needs("host_paths")
async def test_the_path_of_a_volume_is_its_directory(harness: Harness) -> None:
    volume = await Volume.create("here", backend=harness.backend)
    await volume.fs.write("f", b"x")
    assert Path(volume.path, "f").read_bytes() == b"x"
    await Volume.remove("here", backend=harness.backend)
    assert not Path(volume.path).exists()


async def test_a_handle_keeps_its_backend(harness: Harness) -> None:
    from microsandbox.testing import MemoryBackend

    volume = await Volume.create("mine", backend=harness.backend)
    with MemoryBackend():
        await volume.fs.write("f", json.dumps({"a": 1}).encode())
        await (await Volume.get("mine", backend=harness.backend)).remove()
    assert await Volume.list(backend=harness.backend) == []
