"""Trees of a guest without bound, seen from this side: whoever lists, copies, measures or removes them is neither ended nor refused, and needs
no more memory and descriptors for them than for others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from microsandbox import LocalBackend, Sandbox, Volume
from pace import LONG, amount, within
from servers import MSB, Serve, on

# Deeper than the stack of a thread is for a walk that recurses, and than most limits of descriptors are for one that opens each level.
LEVELS = amount(20_000, 100_000)
LONG_LEVELS = amount(1_000, 100_000)
FILES = amount(20_000, 1_000_000)
# Of the guest, MiB: what it makes in a file system in memory is charged to it, 1 KiB or more for each file.
MEMORY = amount(1024, 8192)
# Of the file system for the trees, their copies and what is copied out of them; 1 KiB each.
INODES = amount(1 << 20, 12 << 20)
# What a call may add to the memory of its process.
MOST = 96 << 20

# In the guest: directories within each other, the same with the longest names, and one directory with many files, below each of the places.
BOMBS = """
import os, sys
levels, long_levels, files = map(int, sys.argv[1:4])
for place in sys.argv[4:]:
    for top, name, depth in (("deep", "d", levels), ("long", "n" * 255, long_levels)):
        os.chdir(place)
        os.mkdir(top)
        os.chdir(top)
        for _ in range(depth):
            os.mkdir(name)
            os.chdir(name)
    os.chdir(place)
    os.mkdir("wide")
    os.chdir("wide")
    for number in range(files):
        os.mknod(f"{number:0>200}")
"""

# In a process of its own, which a removal that recurses would end.
SDK = """
import asyncio, contextlib, resource, sys
from pathlib import Path
from microsandbox import FilesystemError, LocalBackend, Sandbox, Volume

home, files, most, limit = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])

def status(field):
    text = Path("/proc/self/status").read_text()
    return int(text.split(field + ":")[1].split()[0]) << 10

@contextlib.contextmanager
def bounded(what, most=most):
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    yield
    grown = status("VmHWM") - before
    assert grown < most, f"{what}: {grown >> 20} MiB more"

async def refused_by_a_limit(call, what):
    with bounded(what):
        try:
            await call
        except FilesystemError as error:
            assert error.kind == "LimitExceeded", error
            return True
    return False

async def main():
    local = LocalBackend(home=home, isolation="container")
    volume = await Volume.get("bombs", backend=local)
    box = await (await Sandbox.get("bombs", backend=local)).connect()
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    for bomb in ("deep", "long", "wide"):
        if bomb != "wide":
            with bounded(f"list {bomb}"):
                assert len(await box.fs.list(f"/root/{bomb}")) == 1
        else:
            await refused_by_a_limit(volume.fs.list(bomb), "list of a volume")
        with bounded(f"copy and remove {bomb}"):
            await box.fs.copy(f"/root/{bomb}", "/root/copy")
            await box.fs.remove_dir("/root/copy")
        with bounded(f"archive {bomb}"):
            size, limited = 0, False
            try:
                async for chunk in await box.fs.read_tar(f"/root/{bomb}"):
                    size += len(chunk)
            except FilesystemError as error:
                assert error.kind == "LimitExceeded" and "deeper" in str(error), error
                limited = True
            # The paths of an archive grow with the square of the depth.
            assert limited == (bomb != "wide") and (limited or size > files * 512)
    with bounded("measure"):
        assert (await Volume.get("bombs", backend=local)).used_bytes >= 0
    with bounded("remove from the volume"):
        for bomb in ("deep", "long", "wide"):
            await volume.fs.remove_dir(bomb)
        assert await volume.fs.list("/") == []
    await box.kill(timeout=60)
    with bounded("remove the sandbox"):
        await (await Sandbox.get("bombs", backend=local)).remove()
        await Volume.remove("bombs", backend=local)

asyncio.run(main())
"""


def limits() -> list[int]:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return [limit if hard == resource.RLIM_INFINITY else min(limit, hard) for limit in (64, 1024, 1_048_576)]


@pytest.fixture
def rooms(home: Path) -> Iterator[Path]:
    """Where the sandboxes and volumes of the home are: in memory, because some disks take a millisecond for each directory that is freed; of
    their own, because /dev/shm has not enough inodes for the long form."""
    directory = Path(tempfile.mkdtemp(prefix="msb-", dir="/dev/shm"))
    options = f"size={INODES}k,nr_inodes={INODES},mode=755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "msb-rooms", directory], check=True)
    config = json.loads((home / "config.json").read_text())
    paths = {name: str(directory / name) for name in ("sandboxes", "volumes")}
    config["paths"] = {**config.get("paths", {}), **paths}
    (home / "config.json").write_text(json.dumps(config))
    yield directory
    # Lazily: a test that failed may have left a sandbox in it.
    subprocess.run(["umount", "--lazy", directory], check=True)
    directory.rmdir()


@pytest.fixture
def local(home: Path, rooms: Path) -> Any:
    """A backend that has read of the rooms."""
    return LocalBackend(home=home, isolation="container")


async def bombed(backend: Any) -> tuple[Any, Any]:
    """A sandbox and a volume that it has filled as much as itself."""
    volume = await Volume.create("bombs", backend=backend)
    options = {"image": "host", "volumes": {"/v": Volume.named("bombs")}, "memory": MEMORY}
    box = await Sandbox.create("bombs", backend=backend, **options)
    sizes = [str(size) for size in (LEVELS, LONG_LEVELS, FILES)]
    done = await box.exec("python3", ["-c", BOMBS, *sizes, "/root", "/v"], timeout=within(900))
    assert done.exit_code == 0, done.stderr_text
    return box, volume


def nothing_is_left(rooms: Path) -> bool:
    return not (rooms / "sandboxes" / "bombs").exists() and not (rooms / "volumes" / "bombs").exists()


async def run(*command: str, limit: int, env: dict[str, str] | None = None) -> tuple[int, str, int]:
    """The exit status, what was said, and the most memory that the process had."""
    process = await asyncio.create_subprocess_exec(
        "prlimit", f"--nofile={limit}:{limits()[-1]}", *command, stderr=asyncio.subprocess.PIPE, env=env
    )
    assert process.stderr
    most, said = 0, b""
    reading = asyncio.ensure_future(process.stderr.read())
    while not reading.done():
        await asyncio.wait([reading], timeout=0.02)
        # Without the field, or gone: it has ended.
        with contextlib.suppress(FileNotFoundError, IndexError):
            text = Path(f"/proc/{process.pid}/status").read_text()
            most = max(most, int(text.split("VmHWM:")[1].split()[0]) << 10)
    said = reading.result()
    return await process.wait(), said.decode(errors="replace"), most


async def test_a_deep_tree_of_an_image_is_removed_and_moved(local: Any, rooms: Path) -> None:
    """What an overlay has of its lower layers it does not move: the way back up is another one there."""
    root = rooms / "root"
    (root / "bin").mkdir(parents=True)
    at = os.open(root, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("n" * 100, dir_fd=at)
        below = os.open("n" * 100, os.O_RDONLY, dir_fd=at)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=below))
        os.close(at)
        at = below
    os.close(at)
    box = await Sandbox.create("box", image=str(root), backend=local)
    try:
        await box.fs.rename(f"/{'n' * 100}", "/moved")
        assert [entry.path for entry in await box.fs.list("/moved")] == ["/moved/file", f"/moved/{'n' * 100}"]
        await box.fs.copy("/moved", "/copy")
        for path in ("/moved", "/copy", "/bin"):
            await box.fs.remove_dir(path)
        assert not await box.fs.exists("/moved")
    finally:
        await box.destroy(force=True)


@pytest.mark.soak
@pytest.mark.timeout(within(3600))
@pytest.mark.parametrize("limit", limits() if LONG else limits()[:1])
async def test_bombs_of_a_guest_are_handled_with_any_limit(local: Any, home: Path, rooms: Path, limit: int) -> None:
    await bombed(local)
    status, said, _ = await run(
        sys.executable, "-c", SDK, str(home), str(FILES), str(MOST), str(limit), limit=limits()[-1]
    )
    assert status == 0, f"exit {status}: {said}"
    assert nothing_is_left(rooms)


@pytest.mark.soak
@pytest.mark.timeout(within(3600))
@pytest.mark.parametrize("limit", limits() if LONG else limits()[1:2])
async def test_the_command_survives_the_bombs_of_a_guest(local: Any, home: Path, rooms: Path, limit: int) -> None:
    box, _ = await bombed(local)
    environment = {**os.environ, **on(home), "MSB_ISOLATION": "container"}
    (rooms / "out").mkdir()

    async def msb(*words: str, says: str = "") -> None:
        status, said, most = await run(MSB, *words, limit=limit, env=environment)
        assert (status, says in said) == (1 if says else 0, True), f"{words}: exit {status}: {said}"
        assert most < MOST, f"{words}: {most >> 20} MiB"

    await msb("copy", "bombs:/root/wide", str(rooms / "out" / "wide"))
    assert len(os.listdir(rooms / "out" / "wide")) == FILES
    await msb("copy", str(rooms / "out" / "wide"), "bombs:/root/back")
    for bomb in ("deep", "long"):
        await msb("copy", f"bombs:/root/{bomb}", str(rooms / "out" / bomb), says="deeper than 256 directories")
        await msb("copy", f"bombs:/root/{bomb}", f"bombs:/root/{bomb}-copy")
        await msb("copy", str(rooms / "volumes" / "bombs" / bomb), "bombs:/root/in", says="deeper than 256 directories")
    await msb("volume", "list")
    await box.kill(timeout=60)
    await msb("remove", "bombs")
    await msb("volume", "remove", "bombs")
    assert nothing_is_left(rooms)


@pytest.mark.soak
@pytest.mark.timeout(within(3600))
@pytest.mark.parametrize("limit", limits() if LONG else limits()[2:])
async def test_a_server_survives_the_bombs_of_a_guest(rooms: Path, serve: Serve, limit: int) -> None:
    from microsandbox import CloudBackend

    server = serve()
    cloud = CloudBackend(server.url, server.key)
    # Made through the server: what was made by others may be none of this key's business.
    box, volume = await bombed(cloud)
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (limit, limits()[-1]))
    for bomb in ("deep", "long"):
        assert len(await box.fs.list(f"/root/{bomb}")) == 1
        await box.fs.copy(f"/root/{bomb}", "/root/copy")
        await box.fs.remove_dir("/root/copy")
    assert (await Volume.get("bombs", backend=cloud)).name == "bombs"
    for bomb in ("deep", "long", "wide"):
        await volume.fs.remove_dir(bomb)
    await box.destroy()
    await Volume.remove("bombs", backend=cloud)
    assert server.ask("GET", "/v1/sandboxes").status == 200
    text = Path(f"/proc/{server.process.pid}/status").read_text()
    most = int(text.split("VmHWM:")[1].split()[0]) << 10
    assert most < MOST, f"{most >> 20} MiB"
    assert nothing_is_left(rooms)
