"""One function a row, or a few rows that share their preparation."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from microsandbox import ExecEventType, Image, LocalBackend, Sandbox

from benches import pulls, served, slow_disk
from benches.measure import Row, at_least, at_most, milliseconds, p50, timed, timed_async
from benches.yardsticks import Yardsticks, bare_exec

MIB = 1 << 20
IMAGE = "debian-python:latest"


@dataclass
class Bench:
    """What every row needs."""

    work: Path
    archive: Path
    backend: Any
    yardsticks: Yardsticks
    scale: float

    def count(self, full: int) -> int:
        return max(3, int(full * self.scale))

    async def create(self, name: str, **options: Any) -> Any:
        return await Sandbox.create(name, image=IMAGE, backend=self.backend, **options)


def per_second(value: float) -> str:
    return f"{value:.1f}/s"


def rate(value: float) -> str:
    return f"{value:.0f} MiB/s"


CRUN_NOTE = "crun does not run on this machine (crun 1.8 refuses hybrid control groups), so runc is the yardstick"


async def life(bench: Bench) -> list[Row]:
    """create -> true -> remove, from a cached image, database rows included."""
    ours, first, crun, runc, bwrap = [], [], [], [], []
    for number in range(bench.count(60) + 3):
        begin = time.perf_counter()
        box = await bench.create(f"life{number}")
        output = await box.exec("true")
        ran = time.perf_counter()
        await box.destroy(force=True)
        end = time.perf_counter()
        assert output.exit_code == 0
        if number >= 3:  # warm
            ours.append(end - begin)
            first.append(ran - begin)
        if bench.yardsticks.crun:
            crun.append(timed(lambda: bench.yardsticks.run(bench.yardsticks.crun or [])))
        if bench.yardsticks.runc:
            runc.append(timed(lambda: bench.yardsticks.run(bench.yardsticks.runc or [])))
        bwrap.append(timed(bench.yardsticks.bwrap))
    note = f"bwrap, which makes no rows, limits or agent: {milliseconds(p50(bwrap))}"
    rows = []
    if crun:
        rows.append(at_most("create, `true`, remove (p50)", p50(ours), "crun run", p50(crun), 1.5, milliseconds, note))
    else:
        rows.append(
            at_most(
                "create, `true`, remove (p50)",
                p50(ours),
                "runc run",
                p50(runc),
                0.5,
                milliseconds,
                f"{CRUN_NOTE}; {note}",
            )
        )
    gate = Row("create to first exec output (p50)", milliseconds(p50(first)), "", None, "<= 25 ms", p50(first) <= 0.025)
    return [*rows, gate]


async def exec_true(bench: Bench) -> list[Row]:
    """exec of `true` in a running sandbox."""
    box = await bench.create("exec")
    program = str(bench.yardsticks.root / "usr/bin/true")
    ours, bare, runc = [], [], []
    with bench.yardsticks.running_runc() as command:
        for number in range(bench.count(300) + 10):
            took = await timed_async(lambda: box.exec("/usr/bin/true"))
            alone = timed(lambda: bare_exec(program))
            if number >= 10:
                ours.append(took)
                bare.append(alone)
            if number % 10 == 0:
                runc.append(timed(lambda: subprocess.run(command, check=True, stdin=subprocess.DEVNULL)))
    await box.destroy(force=True)
    return [
        at_most("exec `true` (p50)", p50(ours), "bare fork+exec", p50(bare), 1.5, milliseconds),
        at_most("exec `true` (p50)", p50(ours), "runc exec", p50(runc), 0.2, milliseconds),
    ]


async def stream_out(bench: Bench) -> list[Row]:
    """1 GiB of stdout into Python, hashed there."""
    size = int(1024 * min(1.0, bench.scale * 2)) * MIB
    script = (
        "import sys\nblock = bytes(range(256)) * 4096\nout = sys.stdout.buffer\n"
        f"for _ in range({size // MIB}): out.write(block)\n"
    )
    right = hashlib.sha256()
    for _ in range(size // MIB):
        right.update(bytes(range(256)) * 4096)
    box = await bench.create("stream", memory=512)

    async def ours() -> None:
        digest = hashlib.sha256()
        handle = await box.exec_stream("python3", ["-c", script])
        async for event in handle:
            if event.event_type is ExecEventType.STDOUT:
                digest.update(event.data)
        assert digest.digest() == right.digest(), "wrong bytes"

    def plain() -> None:
        digest = hashlib.sha256()
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            while data := process.stdout.read1(MIB):
                digest.update(data)
        assert digest.digest() == right.digest()

    took, alone = [], []
    for _ in range(3):
        took.append(await timed_async(ours))
        alone.append(timed(plain))
    await box.destroy(force=True)
    mib = size / MIB
    return [at_least(f"{mib:.0f} MiB of stdout, hashed", mib / p50(took), "plain pipe", mib / p50(alone), 0.5, rate)]


async def files(bench: Bench) -> list[Row]:
    """fs.write and fs.read of 256 MiB."""
    data = os.urandom(256 * MIB)
    box = await bench.create("files", memory=1024)
    writes, reads = [], []
    for _ in range(3):
        writes.append(await timed_async(lambda: box.fs.write("/root/big", data)))
        begin = time.perf_counter()
        back = await box.fs.read("/root/big", max_bytes=len(data))
        reads.append(time.perf_counter() - begin)
        assert back == data, "wrong bytes"
        del back
    plain_file = bench.work / "plain"
    plain_write = p50([timed(lambda: plain_file.write_bytes(data)) for _ in range(3)])
    plain_read = p50([timed(plain_file.read_bytes) for _ in range(3)])
    plain_file.unlink()
    await box.destroy(force=True)
    note = f"plain file on the same disk: write {256 / plain_write:.0f} MiB/s, read {256 / plain_read:.0f} MiB/s"
    rows = []
    for what, samples in (("fs.write of 256 MiB", writes), ("fs.read of 256 MiB", reads)):
        speed = 256 / p50(samples)
        rows.append(Row(what, rate(speed), "", None, ">= 500 MiB/s", speed >= 500, note))
    return rows


class Memory:
    """The peak growth of the resident memory of some processes in bytes, sampled every 5 ms."""

    def __init__(self, *pids: int) -> None:
        self.pids = pids
        self.first = {pid: self.resident(pid) for pid in pids}
        self.most = 0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.watch)

    @staticmethod
    def resident(pid: int) -> int:
        # Shared pages of mapped files are counted by the kernel's cache.
        shared, total = 2, 1
        fields = Path(f"/proc/{pid}/statm").read_text().split()
        return (int(fields[total]) - int(fields[shared])) * 4096

    def watch(self) -> None:
        while not self.over.wait(0.005):
            self.most = max(self.most, sum(self.resident(pid) - self.first[pid] for pid in self.pids))

    def __enter__(self) -> Memory:
        self.thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.over.set()
        self.thread.join()


async def huge(bench: Bench) -> list[Row]:
    """4 GiB into a sandbox of 256 MiB and out again, with progress, compared: growth of the memory of our processes."""
    size = 4096 * MIB
    source, back = bench.work / "huge", bench.work / "back"
    block = os.urandom(64 * MIB)
    with source.open("wb") as file:
        for number in range(64):
            # No two blocks are the same.
            file.write(number.to_bytes(8, "little") + block[8:])
    box = await bench.create("huge", memory=256)
    identity = json.loads((bench.work / "home" / "sandboxes" / "huge" / "runtime" / "identity.json").read_text())
    calls: list[tuple[int, int | None]] = []
    with Memory(os.getpid(), *(identity[who]["pid"] for who in ("runtime", "init"))) as memory:
        seconds_in = await timed_async(
            lambda: box.fs.copy_from_host(source, "/root/huge", progress=lambda *now: calls.append(now))
        )
        seconds_out = await timed_async(lambda: box.fs.copy_to_host("/root/huge", back))
    assert calls == sorted(calls) and calls[-1] == (size, size), "the progress is wrong"
    assert subprocess.run(["cmp", source, back], check=False).returncode == 0, "wrong bytes"
    await box.destroy(force=True)
    os.sync()
    back.unlink()
    plain = timed(lambda: subprocess.run(["cp", "--reflink=never", "--sparse=never", source, back], check=True))
    source.unlink()
    back.unlink()
    growth = memory.most / MIB
    note = f"in {4096 / seconds_in:.0f} MiB/s, out {4096 / seconds_out:.0f} MiB/s; cp on the same disk {4096 / plain:.0f} MiB/s"
    what = "4 GiB in and out: memory of client, runtime and agent, growth"
    return [Row(what, f"{growth:.1f} MiB", "", None, "<= 64 MiB", growth <= 64, note)]


async def workers(bench: Bench) -> list[Row]:
    """Eight concurrent workers: create, exec, remove."""
    total = bench.count(120)
    numbers = iter(range(total))

    async def worker(which: int) -> None:
        for number in numbers:
            async with await bench.create(f"w{which}x{number}") as box:
                assert (await box.exec("true")).exit_code == 0

    begin = time.perf_counter()
    await asyncio.gather(*(worker(n) for n in range(8)))
    ours = total / (time.perf_counter() - begin)
    tool = bench.yardsticks.crun or bench.yardsticks.runc
    yardstick = None
    if tool:
        with ThreadPoolExecutor(8) as pool:
            begin = time.perf_counter()
            list(pool.map(lambda _: bench.yardsticks.run(tool), range(total)))
            yardstick = total / (time.perf_counter() - begin)
    name = f"{tool[0]} run" if tool else "crun run"
    return [
        at_least(
            "8 workers, create-exec-remove",
            ours,
            name,
            yardstick,
            1.0,
            per_second,
            "" if bench.yardsticks.crun else CRUN_NOTE,
        )
    ]


async def idle(bench: Bench) -> list[Row]:
    """Fifty idle sandboxes: proportional set size of all their processes."""
    count = bench.count(50)
    boxes = [await bench.create(f"idle{n}") for n in range(count)]
    await asyncio.sleep(1)
    total = 0
    for number in range(count):
        path = bench.work / "home" / "sandboxes" / f"idle{number}" / "runtime" / "identity.json"
        document = json.loads(path.read_text())
        for who in ("runtime", "init"):
            for line in Path(f"/proc/{document[who]['pid']}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    for box in boxes:
        await box.destroy(force=True)
    each = total / count / MIB
    return [Row(f"{count} idle sandboxes, PSS each", f"{each:.2f} MiB", "", None, "<= 3 MiB", each <= 3)]


async def unpack(bench: Bench) -> list[Row]:
    """Unpacking the Debian layer, verified by digest, written by a confined writer and synced, against tar.

    Neither delays the other: earlier writes are synced before the clock starts (our sync would wait for them), and
    nothing is deleted until the row is done (ext4 skips recently deleted inodes, which lengthens its search).
    """
    ours, tar = [], []
    for number in range(3):
        fresh = LocalBackend(home=bench.work / f"unpack{number}", isolation="container")
        os.sync()
        ours.append(await timed_async(lambda: Image.load(str(bench.archive), tag=IMAGE, backend=fresh)))
        target = bench.work / f"tar{number}"
        target.mkdir()
        os.sync()
        tar.append(
            timed(
                lambda: subprocess.run(
                    ["tar", "-xzf", bench.yardsticks.layer, "-C", target], check=True, stderr=subprocess.DEVNULL
                )
            )
        )
    for number in range(3):
        shutil.rmtree(bench.work / f"unpack{number}")
        shutil.rmtree(bench.work / f"tar{number}")
    size = bench.yardsticks.layer.stat().st_size / MIB
    seconds: Callable[[float], str] = "{:.2f} s".format
    return [at_most(f"unpack a gzip layer of {size:.0f} MiB", p50(ours), "tar xzf", p50(tar), 1.0, seconds)]


async def imports(bench: Bench) -> list[Row]:
    """import microsandbox against a bare interpreter."""
    ours, bare = [], []
    for _ in range(bench.count(20)):
        ours.append(timed(lambda: subprocess.run([sys.executable, "-c", "import microsandbox"], check=True)))
        bare.append(timed(lambda: subprocess.run([sys.executable, "-c", "pass"], check=True)))
    return [at_most("`import microsandbox` (p50)", p50(ours), "python3 -c pass", p50(bare), 3.0, milliseconds)]


async def many(bench: Bench) -> list[Row]:
    """500 concurrent execs over 50 sandboxes: the slowest against the median. An error ends the run."""
    boxes = [await bench.create(f"many-{number}", memory=64) for number in range(50)]

    async def one(box: Any) -> float:
        return await timed_async(lambda: box.exec("/usr/bin/true"))

    await asyncio.gather(*(one(box) for box in boxes))
    samples = sorted(await asyncio.gather(*(one(boxes[number % 50]) for number in range(500))))
    await asyncio.gather(*(box.destroy(force=True) for box in boxes))
    p99 = samples[int(len(samples) * 0.99)]
    middle = p50(samples)
    return [at_most("500 concurrent execs on 50 sandboxes: p99", p99, "their own p50", middle, 20.0, milliseconds)]


async def watch(bench: Bench) -> list[Row]:
    """From the call that writes a file to its event; includes the write."""
    box = await bench.create("watch")
    await box.fs.mkdir("/watched")
    samples = []
    async with await box.fs.watch("/watched") as changes:
        for number in range(bench.count(200)):
            begun = time.perf_counter()
            writing = asyncio.create_task(box.fs.write(f"/watched/{number}", b"x"))
            while f"/watched/{number}" != (await anext(changes)).path:
                pass
            samples.append(time.perf_counter() - begun)
            await writing
    await box.destroy(force=True)
    middle = p50(samples)
    return [Row("`watch`: write to event (p50)", milliseconds(middle), "", None, "<= 20 ms", middle <= 0.020)]


ROWS: dict[str, Callable[[Bench], Awaitable[list[Row]]]] = {
    "life": life,
    "exec": exec_true,
    "stream": stream_out,
    "files": files,
    "huge": huge,
    "workers": workers,
    "idle": idle,
    "unpack": unpack,
    "imports": imports,
    "many": many,
    "watch": watch,
    "slow-disk": slow_disk.slow_disk,
    "pull": pulls.pull,
    "pull-again": pulls.pull_again,
    "pull-cut": pulls.pull_cut,
    "pull-memory": pulls.pull_memory,
    "prune": pulls.prune,
    "serve-exec": served.serve_exec,
    "serve-many": served.serve_many,
    "serve-stream": served.serve_stream,
    "serve-known": served.serve_known,
    "serve-cycles": served.serve_cycles,
}
