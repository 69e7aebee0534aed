"""Rows of `msb serve`: the cost of a server, against the same sandboxes without it, in one run."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from microsandbox import CloudBackend, ExecEventType, Sandbox, SandboxNotFoundError

from benches.measure import Row, at_least, at_most, milliseconds, p50, timed_async

if TYPE_CHECKING:
    from benches.rows import Bench

MIB = 1 << 20
SCRIPT = (
    "import sys\nblock = bytes(range(256)) * 4096\nout = sys.stdout.buffer\n"
    "for _ in range(int(sys.argv[1])): out.write(block)\n"
)


@dataclass
class Served:
    """A running server for the home of the bench, and its client."""

    backend: Any
    pid: int

    def resident(self) -> int:
        """Resident memory in bytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) * 1024
        return 0


@asynccontextmanager
async def serving(bench: Bench) -> AsyncIterator[Served]:
    """`msb serve` for the bench's home, on loopback without TLS."""
    environment = {**os.environ, "MSB_HOME": str(bench.work / "home"), "MSB_ISOLATION": "container"}
    msb = [sys.executable, "-m", "microsandbox"]
    made = subprocess.run([*msb, "serve", "key", "create", "bench"], env=environment, check=True, capture_output=True)
    key = made.stdout.decode().splitlines()[-1]
    # The rows compare one sandbox, made locally, with and without the server.
    offer = ["--isolation", "container", "--allow-host-image", "--share-local"]
    command = [*msb, "serve", "--listen", "127.0.0.1:0", "--insecure-http", *offer]
    log = (bench.work / "serve.log").open("wb")
    with log, subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().decode().split()[-1]
            yield Served(CloudBackend(url, key), process.pid)
        finally:
            process.terminate()
            process.wait(30)
    subprocess.run([*msb, "serve", "key", "revoke", "bench"], env=environment, check=True, capture_output=True)


async def same_box(bench: Bench, served: Served, name: str) -> tuple[Any, Any]:
    """One sandbox, used locally and through the server."""
    local = await bench.create(name, detached=True, memory=512)
    remote = await (await Sandbox.get(name, backend=served.backend)).connect()
    return local, remote


async def serve_exec(bench: Bench) -> list[Row]:
    """exec of `true`, alternately with and without the server."""
    async with serving(bench) as served:
        local, remote = await same_box(bench, served, "served-exec")
        direct, through = [], []
        for number in range(bench.count(300) + 10):
            alone = await timed_async(lambda: local.exec("/usr/bin/true"))
            took = await timed_async(lambda: remote.exec("/usr/bin/true"))
            if number >= 10:
                direct.append(alone)
                through.append(took)
        await local.destroy(force=True)
    more = p50(through) - p50(direct)
    row = Row(
        "served exec `true` (p50)",
        milliseconds(p50(through)),
        f"local {milliseconds(p50(direct))}",
        p50(through) / p50(direct),
        "<= local + 2 ms",
        more <= 0.002,
    )
    return [row]


async def serve_many(bench: Bench) -> list[Row]:
    """200 concurrent execs on 20 sandboxes."""
    async with serving(bench) as served:
        boxes = [await same_box(bench, served, f"served-many{n}") for n in range(20)]
        calls = 200

        async def all_of(which: int) -> None:
            outputs = await asyncio.gather(*(boxes[n % 20][which].exec("echo", [str(n)]) for n in range(calls)))
            assert [o.stdout_text for o in outputs] == [f"{n}\n" for n in range(calls)]

        direct, through = [], []
        for _ in range(3):
            direct.append(await timed_async(lambda: all_of(0)))
            through.append(await timed_async(lambda: all_of(1)))
        for local, _remote in boxes:
            await local.destroy(force=True)
    row = at_least(
        f"served, {calls} concurrent execs on 20 sandboxes, no error",
        calls / p50(through),
        "local",
        calls / p50(direct),
        0.3,
        lambda value: f"{value:.0f}/s",
    )
    return [row]


async def serve_stream(bench: Bench) -> list[Row]:
    """256 MiB of stdout through the server, hashed."""
    right = hashlib.sha256()
    for _ in range(256):
        right.update(bytes(range(256)) * 4096)

    async def read(box: Any) -> None:
        digest = hashlib.sha256()
        async for event in await box.exec_stream("python3", ["-c", SCRIPT, "256"]):
            if event.event_type is ExecEventType.STDOUT:
                digest.update(event.data)
        assert digest.digest() == right.digest(), "wrong bytes"

    async with serving(bench) as served:
        local, remote = await same_box(bench, served, "served-stream")
        direct, through = [], []
        for _ in range(3):
            direct.append(await timed_async(lambda: read(local)))
            through.append(await timed_async(lambda: read(remote)))
        await local.destroy(force=True)
    speed = 256 / p50(through)
    alone = 256 / p50(direct)
    row = Row(
        "served, 256 MiB of stdout, hashed",
        f"{speed:.0f} MiB/s",
        f"local {alone:.0f} MiB/s",
        speed / alone,
        ">= 200 MiB/s",
        speed >= 200,
    )
    return [row]


async def serve_known(bench: Bench) -> list[Row]:
    """Creations through the server that knows few sandboxes, and when it knows a thousand."""
    known = bench.count(950)
    image = "debian-python:latest"

    async def create(name: str) -> float:
        begin = time.perf_counter()
        box = await Sandbox.create(name, image=image, memory=128, backend=served.backend)
        took = time.perf_counter() - begin
        await box.stop()
        return took

    async def fill(numbers: range) -> None:
        for n in numbers:
            await create(f"known{n}")

    async with serving(bench) as served:
        few = [await create(f"known-few{n}") for n in range(23)][3:]
        async with asyncio.TaskGroup() as group:
            for worker in range(4):
                group.create_task(fill(range(worker, known, 4)))
        many = [await create(f"known-many{n}") for n in range(20)]
        while page := (await Sandbox.list_with(limit=100, backend=served.backend)).sandboxes:
            for handle in page:
                await handle.remove()
    return [
        at_most(
            f"served creation with {known + 23} sandboxes known (p50)",
            p50(many),
            "with 3 to 23 known",
            p50(few),
            1.2,
            milliseconds,
        )
    ]


async def serve_cycles(bench: Bench) -> list[Row]:
    """Resident memory of the server while many sandboxes are created and removed, four at a time."""
    total = bench.count(5000)
    async with serving(bench) as served:

        async def live(numbers: list[int]) -> None:
            for number in numbers:
                name = f"served-cycle{number}"
                box = await Sandbox.create(name, image="debian-python:latest", memory=128, backend=served.backend)
                await box.destroy(force=True)

        async def lives(first: int, count: int) -> None:
            await asyncio.gather(*(live(list(range(first + w, first + count, 4))) for w in range(4)))

        warm = max(20, total // 10)
        await lives(0, warm)
        before = served.resident()
        took = await timed_async(lambda: lives(warm, total - warm))
        growth = served.resident() - before
        try:
            await Sandbox.get("served-cycle0", backend=served.backend)
        except SandboxNotFoundError:
            pass
        else:
            raise AssertionError("a removed sandbox is still there")
    row = Row(
        f"server memory over {total} lives of sandboxes, growth",
        f"{growth / MIB:.1f} MiB",
        "",
        None,
        "<= 8 MiB",
        growth <= 8 * MIB,
        f"from {before / MIB:.0f} MiB after the first {warm}; {(total - warm) / took:.0f} lives a second, four at a time",
    )
    return [row]
