"""A home whose disk stalls: the delay of calls on sandboxes of another home, in the same process.

The disk is an ext4 file system in a file, frozen (FIFREEZE) three quarters of the time: every change of a file blocks
until it is thawed, as on busy or remote storage. A client that waits for files on the threads that serve its connections
stalls every other call.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from microsandbox import Image, LocalBackend, Sandbox

from benches.measure import Row, milliseconds, p50, timed_async

if TYPE_CHECKING:
    from benches.rows import Bench

FIFREEZE, FITHAW = 0xC0045877, 0xC0045878
FROZEN, THAWED = 0.3, 0.1
CREATORS = 4
SIZE = 1 << 30


class Stalls:
    """Freezes and thaws a file system in turns until it is closed."""

    def __init__(self, mount: Path) -> None:
        self.directory = os.open(mount, os.O_RDONLY | os.O_DIRECTORY)
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        while not self.over.is_set():
            fcntl.ioctl(self.directory, FIFREEZE, 0)
            self.over.wait(FROZEN)
            fcntl.ioctl(self.directory, FITHAW, 0)
            self.over.wait(THAWED)

    def __enter__(self) -> Stalls:
        self.thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.over.set()
        self.thread.join()
        os.close(self.directory)


def wait_until_closed(mount: Path) -> None:
    """Waits for the connections to the database there, which a thread closes once the backend is gone."""
    deadline = time.monotonic() + 10
    while any(path.startswith(f"{mount}/") for path in map(os.readlink, open_files())):
        assert time.monotonic() < deadline, f"a file in {mount} stays open"
        time.sleep(0.01)


def open_files() -> list[str]:
    return [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}")]


@contextlib.contextmanager
def own_disk(work: Path) -> Iterator[Path]:
    """A file system of its own, mounted in `work`."""
    image, mount = work / "slow.img", work / "slow"
    with image.open("wb") as file:
        file.truncate(SIZE)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
    mount.mkdir()
    subprocess.run(["mount", "-o", "loop", image, mount], check=True)
    try:
        yield mount
    finally:
        wait_until_closed(mount)
        subprocess.run(["umount", mount], check=True)
        image.unlink()


async def latencies(box: Any, count: int) -> list[float]:
    samples = []
    for _ in range(count):
        samples.append(await timed_async(lambda: box.exec("/usr/bin/true")))
        await asyncio.sleep(0.01)
    return sorted(samples)


async def creates(backend: Any, image: str, which: int, made: list[float], over: asyncio.Event) -> None:
    """Creates and removes sandboxes in sequence until `over` is set; appends the duration of each to `made`."""
    number = 0
    while not over.is_set():
        begin = time.perf_counter()
        box = await Sandbox.create(f"slow{which}x{number}", image=image, backend=backend)
        await box.destroy(force=True)
        made.append(time.perf_counter() - begin)
        number += 1


async def slow_disk(bench: Bench) -> list[Row]:
    """exec on a sandbox while four others are created and removed continuously in a home whose disk stalls."""
    if os.geteuid() != 0:
        return [Row("exec beside a home on a stalling disk: p95", "needs root", "", None, "<= 20 ms", None)]
    image = "debian-python:latest"
    count = bench.count(300)
    box = await bench.create("beside")
    alone = await latencies(box, count)
    with own_disk(bench.work) as mount:
        slow = LocalBackend(home=mount / "home", isolation="container")
        await Image.load(str(bench.archive), tag=image, backend=slow)
        made: list[float] = []
        over = asyncio.Event()
        with Stalls(mount):
            creators = [asyncio.create_task(creates(slow, image, which, made, over)) for which in range(CREATORS)]
            await asyncio.sleep(1)
            beside = await latencies(box, count)
            over.set()
            await asyncio.gather(*creators)
        del slow
    await box.destroy(force=True)
    assert made, "no sandbox was made on the stalling disk"
    p95, own = beside[int(count * 0.95)], alone[int(count * 0.95)]
    note = (
        f"p50 {milliseconds(p50(beside))}, alone p50 {milliseconds(p50(alone))} and p95 {milliseconds(own)}; "
        f"frozen {FROZEN * 1000:.0f} ms of {(FROZEN + THAWED) * 1000:.0f}, create and remove there {milliseconds(p50(made))} (p50)"
    )
    what = "exec `true` beside a home on a stalling disk: p95"
    return [Row(what, milliseconds(p95), "", None, "<= 20 ms", p95 <= 0.020, note)]
