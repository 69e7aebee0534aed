"""Captured output: complete, ordered, readable while running and after the end."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest
from backends import Harness, speaker
from boxes import runtime_pid
from microsandbox import LogEntry, LogReadSource, LogSource, MicrosandboxError, Sandbox
from pace import within


def turns() -> int:
    """How often a race is tried."""
    return 20 if within(1) == 1 else 5


async def test_every_session_is_captured_with_its_source(harness: Harness, box: Sandbox) -> None:
    before = time.time() * 1000 - 5000
    for number in range(3):
        await box.exec(*speaker(f"out {number}\n", f"err {number}\n"))
    await box.stop()
    entries = [e for e in await (await Sandbox.get("box", backend=harness.backend)).logs() if e.data.strip()]
    said = [(e.source, e.text()) for e in entries]
    for number in range(3):
        assert (LogSource.STDOUT, f"out {number}\n") in said
        assert (LogSource.STDERR, f"err {number}\n") in said
    assert len({e.session_id for e in entries if e.text().startswith("out")}) == 3
    assert all(before <= e.timestamp_ms <= time.time() * 1000 + 5000 for e in entries)


async def test_the_log_has_all_that_a_call_returned(shared_box: Sandbox) -> None:
    for number in range(turns()):
        await shared_box.exec(*speaker(f"said {number}\n", f"cried {number}\n"))
        said = b"".join(entry.data for entry in await shared_box.logs(tail=20))
        assert b"said %d\n" % number in said and b"cried %d\n" % number in said


@pytest.mark.needs("programs")
async def test_the_log_is_complete_though_its_writer_lags(harness: Harness, box: Sandbox) -> None:
    # The process that writes the log is stopped while a program runs to its end, and continued only after the log was requested.
    assert harness.home is not None
    writer = runtime_pid(harness.home)
    os.kill(writer, signal.SIGSTOP)
    try:
        assert (await box.exec(*speaker("written late\n"))).exit_code == 0
        asyncio.get_running_loop().call_later(0.3, os.kill, writer, signal.SIGCONT)
        assert "written late\n" in [entry.text() for entry in await box.logs()]
        os.kill(writer, signal.SIGSTOP)
        assert (await box.exec(*speaker("later still\n"))).exit_code == 0
        asyncio.get_running_loop().call_later(0.3, os.kill, writer, signal.SIGCONT)
        assert "later still\n" in [entry.text() async for entry in await box.log_stream(follow=False)]
    finally:
        os.kill(writer, signal.SIGCONT)


@pytest.mark.needs("programs")
async def test_the_log_has_a_large_output_at_once(shared_box: Sandbox) -> None:
    output = await shared_box.exec("seq", ["1", "200000"])
    last = [entry async for entry in await shared_box.log_stream(follow=False)]
    assert b"".join(entry.data for entry in last).endswith(output.stdout_bytes)


async def test_the_last_bytes_are_there_right_after_stop(harness: Harness, box: Sandbox) -> None:
    await box.exec(*speaker("the very last words"))
    await box.stop()
    logs = await (await Sandbox.get("box", backend=harness.backend)).logs()
    assert "".join(e.text() for e in logs).endswith("the very last words")


async def test_tail_is_applied_last(shared_box: Sandbox) -> None:
    for number in range(4):
        await shared_box.exec(*speaker(f"line {number}\n", "noise\n"))
    tail = await shared_box.logs(tail=2, sources=[LogReadSource.STDOUT])
    assert [e.text() for e in tail] == ["line 2\n", "line 3\n"]


async def test_since_is_inclusive_and_until_exclusive(shared_box: Sandbox) -> None:
    for number in range(3):
        await shared_box.exec(*speaker(f"moment {number}\n"))
        await asyncio.sleep(0.02)

    async def moments(**bounds: float) -> list[LogEntry]:
        entries = await shared_box.logs(sources=[LogReadSource.STDOUT], **bounds)
        return [e for e in entries if e.text().startswith("moment")]

    entries = await moments()
    assert len(entries) == 3
    middle = entries[1].timestamp_ms
    assert [e.text() for e in await moments(since_ms=middle)] == ["moment 1\n", "moment 2\n"]
    assert [e.text() for e in await moments(until_ms=middle)] == ["moment 0\n"]


async def test_all_adds_the_system_entries(harness: Harness, box: Sandbox) -> None:
    await box.exec(*speaker("x\n"))
    await box.stop()
    handle = await Sandbox.get("box", backend=harness.backend)
    plain = await handle.logs()
    everything = await handle.logs(sources=[LogReadSource.ALL])
    assert len(everything) > len(plain)
    system = "".join(e.text() for e in everything if e.source is LogSource.SYSTEM)
    assert "--- sandbox started ---" in system
    assert "--- sandbox stopped ---" in system
    assert all(e.session_id is None for e in everything if e.source is LogSource.SYSTEM)


async def test_a_cursor_resumes_strictly_after_its_entry(shared_box: Sandbox) -> None:
    for number in range(4):
        await shared_box.exec(*speaker(f"step {number}\n"))
    entries = [e async for e in await shared_box.log_stream(sources=[LogReadSource.STDOUT])]
    steps = [e for e in entries if e.text().startswith("step")]
    assert [e.text() for e in steps] == [f"step {n}\n" for n in range(4)]
    stream = await shared_box.log_stream(sources=[LogReadSource.STDOUT], from_cursor=steps[1].cursor)
    assert [e.text() async for e in stream] == ["step 2\n", "step 3\n"]


async def test_a_bad_cursor_is_refused(shared_box: Sandbox) -> None:
    with pytest.raises(MicrosandboxError):
        async for _ in await shared_box.log_stream(from_cursor="no such cursor"):
            pass


async def test_follow_sees_what_comes_and_ends_with_the_sandbox(harness: Harness, box: Sandbox) -> None:
    programs = [speaker(f"line {n}\n") for n in range(3)]
    stream = await box.log_stream(follow=True, sources=[LogReadSource.STDOUT])

    async def read() -> list[str]:
        return [entry.text() async for entry in stream]

    reader = asyncio.create_task(read())
    for program in programs:
        await box.exec(*program)
    await box.stop()
    assert await asyncio.wait_for(reader, within(20)) == ["line 0\n", "line 1\n", "line 2\n"]


async def test_bytes_that_are_no_text_survive(shared_box: Sandbox) -> None:
    await shared_box.exec("printf", [r"\377\376\000binary"])
    entries = await shared_box.logs(sources=[LogReadSource.STDOUT])
    assert b"".join(e.data for e in entries).endswith(b"\xff\xfe\x00binary")


@pytest.mark.hazard("X3")
@pytest.mark.needs("programs")
async def test_late_and_returning_readers_lose_nothing(box: Sandbox) -> None:
    """Characters of several bytes, written so that every pause cuts one in two."""
    program = (
        "import os, time\n"
        "text = 'é€𝄞'.encode() * 40\n"
        "for at in range(0, len(text), 5):\n"
        "    os.write(1, text[at:at + 5]); time.sleep(0.002)\n"
    )
    expected = "é€𝄞" * 40
    running = await box.exec_stream("python3", ["-c", program])
    while not await box.logs(sources=[LogReadSource.STDOUT]):  # late: some of it was said before
        await asyncio.sleep(0.005)
    got: list[bytes] = []
    cursor: str | None = None
    for reader in range(4):  # each leaves after a few entries, the next goes on behind the last one
        stream = await box.log_stream(sources=[LogReadSource.STDOUT], from_cursor=cursor, follow=reader < 3)
        taken = 0
        async for entry in stream:
            got.append(entry.data)
            cursor = entry.cursor
            taken += 1
            if reader < 3 and (taken == 3 or b"".join(got).decode(errors="ignore") == expected):
                break
        if reader == 2:
            await running.wait()
    assert b"".join(got).decode() == expected


@pytest.mark.needs("programs")
async def test_terminal_output_is_logged_as_output(shared_box: Sandbox) -> None:
    await shared_box.shell("echo on the terminal", tty=True)
    entries = await shared_box.logs(sources=[LogReadSource.OUTPUT])
    assert "on the terminal" in "".join(e.text() for e in entries)


@pytest.mark.hazard("G2")
@pytest.mark.needs("programs")
async def test_the_log_is_bounded_and_keeps_the_newest(shared_box: Sandbox) -> None:
    await shared_box.exec(
        "sh",
        ["-c", "head -c 60000000 /dev/zero | tr '\\0' 'x' | fold -w 1000; echo; echo the end"],
        max_output_bytes=1000,
    )
    entries = await shared_box.logs()
    assert sum(len(e.data) for e in entries) <= 64 << 20
    assert entries[-1].text().endswith("the end\n")
