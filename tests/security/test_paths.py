"""F: the file API against hostile trees inside, and hostile destinations outside."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from microsandbox import FilesystemError, IoError, MicrosandboxError
from pace import amount

Make = Callable[..., Awaitable[Any]]


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A host file whose content must never come out of a sandbox, nor change."""
    path = tmp_path / "host-secret"
    path.write_bytes(b"of the host only")
    return path


@pytest.mark.hazard("F1")
@pytest.mark.parametrize(
    "path", ["/../../../../etc/shadow", "/..", "/a/../../../etc/shadow", "//etc//shadow", "/etc/../etc/./shadow"]
)
async def test_dots_stay_inside(make: Make, path: str) -> None:
    box = await make()
    await box.shell("echo inside > /etc/shadow")
    try:
        data = await box.fs.read(path)
    except FilesystemError:
        return
    assert data == b"inside\n"


@pytest.mark.hazard("F1")
async def test_the_hosts_files_are_not_there(make: Make, secret: Path) -> None:
    box = await make()
    for prefix in ("", "/..", "/../..", "/proc/..", "/tmp/../.."):
        assert not await box.fs.exists(f"{prefix}{secret}")


@pytest.mark.hazard("F2")
async def test_a_planted_link_leads_to_the_guests_file(make: Make, secret: Path) -> None:
    box = await make()
    await box.shell(
        f"mkdir -p {secret.parent}; echo -n guest > {secret}; ln -s {secret} /x; ln -s ../../../../..{secret} /y; ln -s /etc /e"
    )
    assert await box.fs.read("/x") == b"guest"
    assert await box.fs.read("/y") == b"guest"
    await box.fs.write("/x", b"written inside")
    assert secret.read_bytes() == b"of the host only"
    await box.fs.write("/e/made-inside", b"1")
    assert not Path("/etc/made-inside").exists()


FLIP = """
import os
os.makedirs('/real', exist_ok=True)
os.symlink('/', '/link') if not os.path.lexists('/link') else None
print('flipping', flush=True)
while True:
    try:
        os.rename('/real', '/d'); os.rename('/d', '/real')
        os.rename('/link', '/d'); os.rename('/d', '/link')
    except OSError:
        pass
"""


@pytest.mark.hazard("F3")
@pytest.mark.soak
@pytest.mark.timeout(amount(180, 3600))
async def test_a_flipping_link_never_lets_a_write_out(make: Make) -> None:
    """`/d` is now a directory, now a link to `/`: writes to `/d/…` land in the sandbox or fail."""
    box = await make()
    name = f"msb-race-{os.getpid()}"
    racer = await box.exec_stream("python3", ["-c", FLIP])
    while b"flipping" not in ((await racer.recv()).data or b""):
        pass
    tries = amount(4000, 100_000)

    async def once() -> None:
        with contextlib.suppress(MicrosandboxError):
            await box.fs.write(f"/d/{name}", b"x")

    for _ in range(tries // 20):
        await asyncio.gather(*(once() for _ in range(20)))
    await racer.kill()
    await racer.wait()
    assert not Path(f"/{name}").exists(), "a write left the sandbox"


@pytest.mark.hazard("F4")
@pytest.mark.parametrize(
    "path",
    [
        "/proc/self/root/etc/hostname",
        "/proc/1/root/etc/hostname",
        "/proc/self/fd/0",
        "/dev/fd/0",
        "/proc/self/cwd/x",
        "/proc/1/cwd/x",
        "/proc/self/exe",
    ],
)
async def test_magic_links_are_refused(make: Make, path: str) -> None:
    box = await make()
    for call in (box.fs.read(path), box.fs.write(path, b"x"), box.fs.remove(path)):
        with pytest.raises(FilesystemError) as caught:
            await call
        assert caught.value.kind in ("MagicLink", "ELOOP", "EACCES", "EPERM", "ENOENT", "EROFS"), caught.value.kind
    with pytest.raises(FilesystemError) as caught:
        await box.fs.read(path)
    if path.startswith(("/proc/self", "/dev/fd")):
        assert caught.value.kind == "MagicLink"


@pytest.mark.hazard("F5")
async def test_special_files_do_not_hang_or_leave(make: Make, tmp_path: Path) -> None:
    box = await make()
    await box.shell(
        "mkfifo /tmp/fifo; ln -s /tmp/loop /tmp/loop; ln -s /nowhere /tmp/dangling; truncate -s 1T /tmp/sparse; "
        "cp $(readlink -f /usr/bin/id) /tmp/suid; chmod 4755 /tmp/suid; mkdir /tmp/dir"
    )
    for name in ("fifo", "loop", "dangling", "dir"):
        with pytest.raises((FilesystemError, IoError)):
            await asyncio.wait_for(box.fs.copy_to_host(f"/tmp/{name}", tmp_path / name), 20)
        assert not os.path.lexists(tmp_path / name), name
    await box.fs.copy_to_host("/tmp/suid", tmp_path / "suid")
    assert (tmp_path / "suid").stat().st_mode & (stat.S_ISUID | stat.S_ISGID) == 0
    assert (tmp_path / "suid").stat().st_uid == os.getuid()


@pytest.mark.hazard("F5")
async def test_reading_a_fifo_or_a_device_is_refused(make: Make) -> None:
    box = await make()
    await box.shell("mkfifo /tmp/fifo")
    for path in ("/tmp/fifo", "/dev/zero", "/dev/random"):
        with pytest.raises(FilesystemError) as caught:
            await asyncio.wait_for(box.fs.read(path), 20)
        assert caught.value.kind == "NotRegularFile"


@pytest.mark.hazard("F6")
async def test_a_link_planted_on_the_host_side_is_not_followed(make: Make, tmp_path: Path, secret: Path) -> None:
    box = await make()
    await box.fs.write("/tmp/f", b"from the sandbox")
    (tmp_path / "target").symlink_to(secret)
    with pytest.raises((FilesystemError, IoError)):
        await box.fs.copy_to_host("/tmp/f", tmp_path / "target")
    assert secret.read_bytes() == b"of the host only"


@pytest.mark.hazard("F8")
async def test_an_interrupted_write_is_all_or_nothing(make: Make, local: Any, home: Path) -> None:
    """The agent is killed while a file is being replaced: old or new content, never a mix."""
    import signal

    from boxes import init_pid
    from microsandbox import Sandbox

    old, new = b"o" * (8 << 20), b"n" * (8 << 20)
    for delay in (0.001, 0.004, 0.01, 0.02):
        box = await make("box", replace=True)
        await box.fs.write("/root/f", old)
        task = asyncio.create_task(box.fs.write("/root/f", new))
        await asyncio.sleep(delay)
        os.kill(init_pid(home), signal.SIGKILL)
        await asyncio.gather(task, return_exceptions=True)
        await box.wait_until_stopped()
        again = await Sandbox.start("box", backend=local)
        assert await again.fs.read("/root/f") in (old, new), delay


@pytest.mark.hazard("F7")
@pytest.mark.timeout(180)
async def test_a_large_directory_lists_in_bounded_memory(make: Make) -> None:
    def resident() -> int:
        text = Path("/proc/self/status").read_text()
        return int(text.split("VmRSS:")[1].split()[0]) * 1024

    box = await make()
    count = 100_000
    script = f"import os\nos.makedirs('/tmp/many')\nfor n in range({count}): os.close(os.open(f'/tmp/many/{{n:06}}', os.O_CREAT))"
    assert (await box.exec("python3", ["-c", script], timeout=100)).exit_code == 0
    before = resident()
    entries = await box.fs.list("/tmp/many")
    # The entries themselves are Python objects, about half a kilobyte each.
    assert resident() - before < 64 << 20
    assert len(entries) == count
    assert {entry.path for entry in entries} == {f"/tmp/many/{n:06}" for n in range(count)}


@pytest.mark.hazard("F11")
async def test_no_file_of_host_root_can_be_made(make: Make, home: Path) -> None:
    """What root inside owns is not root's outside."""
    box = await make()
    await box.shell("cp $(readlink -f /usr/bin/id) /root/id; chown 0:0 /root/id; chmod 6755 /root/id")
    found = list((home / "sandboxes" / "box" / "upper").rglob("id"))
    assert found
    for path in found:
        assert path.lstat().st_uid != 0 or os.getuid() != 0, "a setuid file of host root"
        assert path.lstat().st_uid != 0
