"""M8: what a flood of output costs the host, and what it never costs the caller."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from boxes import identity

MIB = 1 << 20


def runtime_of(home: Path, name: str = "box") -> int:
    return int(identity(home, name)["runtime"]["pid"])


def written(pid: int) -> int:
    """Bytes that the process passed to write(2) and its kin."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["wchar"])


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


async def test_output_without_a_reader_costs_a_bounded_log(make: Any, home: Path) -> None:
    box = await make()
    pid = runtime_of(home)
    before = (written(pid), processor_seconds(pid))
    job = await box.exec_detached("head", ["-c", str(600 * MIB), "/dev/zero"])
    await job.wait()
    # 64 MiB at any speed, 4 MiB/s after that, as base64.
    assert written(pid) - before[0] < 200 * MIB
    assert processor_seconds(pid) - before[1] < 2
    entries = await box.logs()
    markers = [entry for entry in entries if b" were dropped: " in entry.data]
    assert markers and all(entry.source.value == "system" for entry in markers)


async def test_a_caller_gets_all_of_a_flood(make: Any) -> None:
    box = await make()
    received = 0
    begun = time.monotonic()
    handle = await box.exec_stream("head", ["-c", str(200 * MIB), "/dev/zero"])
    async for event in handle:
        received += len(event.data or b"") if event.event_type.value == "stdout" else 0
    assert received == 200 * MIB, f"{received} bytes in {time.monotonic() - begun:.1f} s"


async def test_below_the_budget_the_log_has_every_byte(make: Any) -> None:
    box = await make()
    output = await box.exec("seq", ["1", "1000000"])
    entries = await box.logs()
    assert b"".join(entry.data for entry in entries) == output.stdout_bytes
