"""Live programs: events in order, standard input, signals, terminals."""

from __future__ import annotations

import asyncio
import hashlib
import signal
from typing import Any

import pytest
from backends import speaker
from microsandbox import ExecEventType, ExecFailedError, IoError, Sandbox, Stdin
from pace import within


async def events(handle: Any) -> list[Any]:
    return [event async for event in handle]


async def test_started_comes_first_and_exited_last(shared_box: Sandbox) -> None:
    seen = await events(await shared_box.exec_stream(*speaker("out", "err", 4)))
    assert seen[0].event_type is ExecEventType.STARTED
    assert seen[-1].event_type is ExecEventType.EXITED
    assert seen[-1].code == 4
    kinds = [event.event_type for event in seen[1:-1]]
    assert set(kinds) == {ExecEventType.STDOUT, ExecEventType.STDERR}
    assert b"".join(e.data for e in seen if e.event_type is ExecEventType.STDOUT) == b"out"
    assert b"".join(e.data for e in seen if e.event_type is ExecEventType.STDERR) == b"err"


async def test_recv_gives_none_after_the_end(shared_box: Sandbox) -> None:
    handle = await shared_box.exec_stream("true")
    while (event := await handle.recv()) is not None:
        last = event
    assert last.event_type is ExecEventType.EXITED
    assert await handle.recv() is None


async def test_wait_and_collect(shared_box: Sandbox) -> None:
    assert await (await shared_box.exec_stream(*speaker("out", code=5))).wait() == (5, False)
    output = await (await shared_box.exec_stream(*speaker("out", code=5))).collect()
    assert (output.stdout_text, output.exit_code) == ("out", 5)


async def test_no_stdin_unless_piped(shared_box: Sandbox) -> None:
    handle = await shared_box.exec_stream("true")
    assert handle.take_stdin() is None
    await handle.wait()


async def test_a_missing_program_fails_either_way(shared_box: Sandbox) -> None:
    try:
        handle = await shared_box.exec_stream("no-such-program")
        seen = await events(handle)
    except ExecFailedError as error:
        assert error.kind == "not_found"
        return
    assert [event.event_type for event in seen] == [ExecEventType.FAILED]
    assert seen[0].code == 2


async def test_a_pipe_into_a_program(shared_box: Sandbox) -> None:
    handle = await shared_box.exec_stream("cat", stdin=Stdin.pipe())
    sink = handle.take_stdin()
    assert sink is not None
    assert handle.take_stdin() is None
    await sink.write(b"one ")
    await sink.write(b"two")
    await sink.close()
    output = await handle.collect()
    assert output.stdout_bytes == b"one two"


@pytest.mark.needs("programs")
async def test_a_conversation(shared_box: Sandbox) -> None:
    handle = await shared_box.exec_stream("sh", ["-c", "while read line; do echo got $line; done"], stdin=Stdin.pipe())
    sink = handle.take_stdin()
    assert sink is not None
    assert (await handle.recv()).event_type is ExecEventType.STARTED
    for word in (b"alpha", b"beta", b"gamma"):
        await sink.write(word + b"\n")
        event = await asyncio.wait_for(handle.recv(), within(10))
        assert event.data == b"got " + word + b"\n"
    await sink.close()
    assert await handle.wait() == (0, True)


@pytest.mark.hazard("X9")
async def test_writing_to_a_program_that_left(shared_box: Sandbox) -> None:
    handle = await shared_box.exec_stream("true", stdin=Stdin.pipe())
    sink = handle.take_stdin()
    assert sink is not None
    with pytest.raises(IoError) as caught:
        for _ in range(10_000):
            await asyncio.wait_for(sink.write(b"x" * 65536), within(20))
    assert isinstance(caught.value, OSError)


@pytest.mark.hazard("X9")
@pytest.mark.needs("programs")
async def test_much_input_through_a_slow_program(shared_box: Sandbox) -> None:
    data = bytes(range(256)) * 65536  # 16 MiB
    program = "import hashlib, sys, time\nh = hashlib.sha256()\nwhile b := sys.stdin.buffer.read(1 << 20):\n    h.update(b); time.sleep(0.02)\nprint(h.hexdigest())"
    output = await shared_box.exec("python3", ["-c", program], stdin=data)
    assert (output.exit_code, output.stderr_text) == (0, "")
    assert output.stdout_text.strip() == hashlib.sha256(data).hexdigest()


@pytest.mark.needs("programs")
async def test_signal_kill_and_resize_while_another_task_receives(shared_box: Sandbox) -> None:
    program = "trap 'echo usr1' USR1; trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done"
    handle = await shared_box.exec_stream("bash", ["-c", program], tty=True)
    seen: list[bytes] = []
    changed = asyncio.Condition()

    async def receive() -> None:
        async for event in handle:
            if event.event_type is ExecEventType.STDOUT:
                async with changed:
                    seen.append(event.data)
                    changed.notify_all()

    async def until(text: bytes) -> None:
        async with changed:
            await asyncio.wait_for(changed.wait_for(lambda: text in b"".join(seen)), within(20))

    receiver = asyncio.create_task(receive())
    await until(b"ready")
    await handle.signal(signal.SIGUSR1)
    await until(b"usr1")
    await handle.resize(50, 132)
    await until(b"50 132")
    await handle.kill()
    await asyncio.wait_for(receiver, within(20))


@pytest.mark.hazard("P9")
@pytest.mark.needs("programs")
async def test_a_slow_reader_slows_the_program(shared_box: Sandbox) -> None:
    """Nothing is read for a while: the program must stand still, not fill somebody's memory."""
    script = "import sys\nn = 0\nwhile True:\n    sys.stdout.buffer.write(b'x' * 65536); n += 1\n    open('/tmp/count', 'w').write(str(n))"
    handle = await shared_box.exec_stream("python3", ["-c", script])

    async def count() -> int:
        try:
            return int(await shared_box.fs.read_text("/tmp/count") or 0)
        except Exception:
            return 0

    # Until the counter stops: the windows and pipes are full.
    previous = -1
    while (now := await count()) != previous or now == 0:
        previous = now
        await asyncio.sleep(0.5)
    assert now * 65536 < 64 << 20, f"{now * 65536} bytes were accepted although no reader takes them"
    await handle.kill()
    await handle.wait()


@pytest.mark.needs("programs")
async def test_a_terminal_program_sees_its_size_and_hangup(shared_box: Sandbox) -> None:
    handle = await shared_box.exec_stream("sh", ["-c", "stty size; cat"], tty=True, stdin=Stdin.pipe())
    sink = handle.take_stdin()
    assert sink is not None
    await sink.write(b"typed\n\x04")
    output = await asyncio.wait_for(handle.collect(), within(20))
    assert b"24 80" in output.stdout_bytes
    assert output.stdout_bytes.count(b"typed") == 2  # echoed by the terminal, then by cat


async def test_every_handle_has_its_own_id(shared_box: Sandbox) -> None:
    handles = [await shared_box.exec_stream("true") for _ in range(5)]
    assert len({handle.id for handle in handles}) == 5
    for handle in handles:
        await handle.wait()
