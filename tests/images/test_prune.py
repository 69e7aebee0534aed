"""Removing images and accounting for them, beside operations that use them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from archives import Archive, directory, file, layer
from clients import Client, finish
from microsandbox import Image, ImageInUseError, ImageNotFoundError, Sandbox, Storage, Volume
from pace import within

pytestmark = pytest.mark.fresh_home

Make = Callable[..., Awaitable[Any]]
BASE = [directory("bin"), directory("etc"), directory("tmp", 0o1777), file("etc/os-release", b"NAME=test\n")]


async def stored(local: Any, path: Path, tag: str, content: bytes = b"1") -> None:
    archive = Archive([layer(BASE), layer([file("etc/a", content)])])
    await Image.load(archive.write(path), tag=tag, backend=local)


def on_disk(place: Path) -> int:
    """Bytes, as `du` counts them."""
    return int(subprocess.run(["du", "-s", "-B1", place], capture_output=True, text=True, check=True).stdout.split()[0])


def listing(place: Path) -> dict[str, tuple[int, int]]:
    """Every file with its time and size."""
    found = {}
    for path in sorted(place.rglob("*")):
        state = path.lstat()
        found[str(path)] = (state.st_mtime_ns, state.st_size)
    return found


def rest(home: Path) -> list[str]:
    """What is neither a layer nor a blob nor a lock."""
    cache = home / "cache"
    names = [path.name for place in ("layers", "leases", "blobs/.part", "tmp") for path in (cache / place).glob("*")]
    return [name for name in names if name.startswith((".tmp", ".gone")) or (len(name) < 64 and name[0] != ".")]


async def reached(mark: Path, process: Any) -> None:
    for _ in range(int(within(60) * 200)):
        if mark.exists():
            return
        assert process.poll() is None, process.communicate()
        await asyncio.sleep(0.005)
    raise AssertionError("the step was never reached")


async def test_an_image_stays_while_a_sandbox_is_made_of_it(
    client: Client, local: Any, home: Path, tmp_path: Path
) -> None:
    """Between the look for the image and the record of the sandbox, another process removes what nothing uses."""
    await stored(local, tmp_path / "a.tar", "raced:1")
    mark = tmp_path / "mark"
    code = """
    async def main():
        box = await Sandbox.create("box", image="raced:1", backend=backend)
        print((await box.fs.read("/etc/a")).decode())
        await box.kill()
    """
    creation = client(code, MSB_FAILPOINT="pause.locked", MSB_FAILPOINT_MARK=str(mark))
    await reached(mark, creation)
    report = await Image.prune(backend=local)
    assert (report.image_refs_removed, report.layers_removed, report.skipped_in_use) == (0, 0, 1)
    assert report.in_use == [("raced:1", f"create sandbox box (process {creation.pid})")]
    with pytest.raises(ImageInUseError):
        await Image.remove("raced:1", backend=local)
    await Image.remove("raced:1", force=True, backend=local)
    await stored(local, tmp_path / "a.tar", "raced:1")
    mark.unlink()
    status, out, err = finish(creation)
    assert (status, out) == (0, "1\n"), err
    await Sandbox.remove("box", backend=local)
    assert (await Image.prune(backend=local)).image_refs_removed == 1
    assert rest(home) == []


async def test_images_are_removed_beside_an_import(client: Client, local: Any, home: Path, tmp_path: Path) -> None:
    """An import that takes long neither delays a removal nor loses a layer to it."""
    await stored(local, tmp_path / "a.tar", "old:1")
    await stored(local, tmp_path / "a.tar", "shared:1")
    Archive([layer(BASE), layer([file("etc/a", b"2")])]).write(tmp_path / "b.tar")
    mark = tmp_path / "mark"
    code = """
    async def main():
        await Image.load(sys.argv[1], tag="new:1", backend=backend)
        await Image.save("new:1", output_path=sys.argv[1] + ".saved", backend=backend)
    """
    importing = client(
        code, str(tmp_path / "b.tar"), MSB_FAILPOINT="pause.image_unpacked", MSB_FAILPOINT_MARK=str(mark)
    )
    await reached(mark, importing)
    await asyncio.wait_for(Image.remove("old:1", backend=local), within(10))
    report = await asyncio.wait_for(Image.prune(backend=local), within(10))
    # The lowest layer is one of the import, too.
    assert (report.image_refs_removed, report.layers_removed) == (1, 1)
    mark.unlink()
    status, _, err = finish(importing)
    assert status == 0, err
    box = await Sandbox.create("box", image="new:1", backend=local)
    assert await box.fs.read("/etc/a") == b"2"
    await box.kill()
    await Sandbox.remove("box", backend=local)


async def test_what_prune_reports_is_what_du_finds(local: Any, make: Make, home: Path, tmp_path: Path) -> None:
    big = os.urandom(3 << 20)
    await stored(local, tmp_path / "a.tar", "used:1")
    for number in range(3):
        await stored(local, tmp_path / f"{number}.tar", f"idle:{number}", big + bytes([number]))
    await make(image="used:1")
    before = listing(home / "cache")
    expected = await Image.prune(dry_run=True, backend=local)
    assert listing(home / "cache") == before and expected.dry_run
    size = on_disk(home / "cache")
    report = await Image.prune(backend=local)
    gained = size - on_disk(home / "cache")
    assert report.bytes_reclaimed is not None and expected.bytes_reclaimed == report.bytes_reclaimed
    assert abs(report.bytes_reclaimed - gained) <= 0.01 * gained, (report.bytes_reclaimed, gained)
    assert report.removed == expected.removed == ["idle:0", "idle:1", "idle:2"]
    assert report.in_use == expected.in_use == [("used:1", "box")]
    assert (report.layers_removed, report.skipped_in_use) == (expected.layers_removed, 1) == (3, 1)
    assert rest(home) == []


async def test_what_prune_may_remove_is_chosen_by_its_options(local: Any, home: Path, tmp_path: Path) -> None:
    await stored(local, tmp_path / "a.tar", "one:1")
    part = home / "cache/blobs/.part" / ("0" * 64)
    part.write_bytes(b"cut")
    report = await Image.prune(dangling=True, backend=local)
    assert (report.image_refs_removed, report.parts_removed) == (0, 0)
    os.utime(part, (1, 1))
    report = await Image.prune(older_than_seconds=3600, backend=local)
    assert (report.image_refs_removed, report.parts_removed, report.blobs_removed) == (0, 1, 0)
    report = await Image.prune(older_than_seconds=3600, blobs=True, backend=local)
    # The layers; manifest and configuration stay.
    assert (report.image_refs_removed, report.blobs_removed) == (0, 2)
    assert len(list((home / "cache/blobs/sha256").iterdir())) == 2
    report = await Image.prune(older_than_seconds=0, backend=local)
    assert (report.image_refs_removed, report.blobs_removed) == (1, 2)
    with pytest.raises(ValueError, match="older_than_seconds"):
        await Image.prune(older_than_seconds=-1, backend=local)


async def test_the_commands_show_usage_and_prune(local: Any, make: Make, home: Path, tmp_path: Path) -> None:
    await stored(local, tmp_path / "a.tar", "used:1")
    await stored(local, tmp_path / "b.tar", "idle:1", b"2")
    await make(image="used:1")

    def msb(*arguments: str) -> str:
        command = [sys.executable, "-m", "microsandbox", *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "MSB_HOME": str(home)}, timeout=within(60)
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "images" in msb("df") and "idle:1" in msb("df", "--verbose")
    shown = msb("prune", "--dry-run")
    assert "idle:1\n" in shown and "used:1 is kept: in use by box" in shown and "would be deleted" in shown
    assert {image.reference for image in await Image.list(backend=local)} == {"used:1", "idle:1"}
    assert "idle:1\n" in msb("prune", "-y")
    with pytest.raises(ImageNotFoundError):
        await Image.get("idle:1", backend=local)


async def test_usage_counts_what_is_shared_once(local: Any, make: Make, home: Path, tmp_path: Path) -> None:
    big = os.urandom(1 << 20)
    await stored(local, tmp_path / "a.tar", "one:1", big)
    await Image.load(tmp_path / "a.tar", tag="two:1", backend=local)
    box = await make(image="one:1")
    volume = await Volume.create("data", backend=local)
    await volume.fs.write("f", b"x" * 100_000)
    usage = await Storage.usage(backend=local)
    cache = [home / "cache/layers", home / "cache/blobs"]
    size = sum(on_disk(place) for place in cache)
    # Directories, markers and locks are in none of the images.
    assert 0.9 * size < usage.images.allocated_bytes <= size
    assert [item.name for item in usage.images.items] == ["one:1", "two:1"]
    assert usage.images.items[0].logical_bytes == usage.images.items[1].logical_bytes > 2 << 20
    assert usage.images.logical_bytes == usage.images.items[0].logical_bytes
    # Both are one image, which the sandbox is made of.
    assert usage.images.in_use == 2 and usage.images.items[0].reasons == ["sandbox box"]
    (item,) = usage.volumes.items
    assert (item.name, item.logical_bytes, item.in_use) == ("data", 100_000, False)
    (item,) = usage.sandboxes.items
    assert item.name == "box" and item.in_use and not item.reclaimable and item.reasons == ["it is Running"]
    handle = await Sandbox.get(box.name, backend=local)
    assert (await handle.storage_usage()).name == "box"
    assert usage.branch_memory.count == 0 and usage.branch_memory.notes
    assert (await Storage.prune(dry_run=True)).files_removed == 0
