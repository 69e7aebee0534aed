"""Programs that outlive their client."""

from __future__ import annotations

import asyncio
import sys
import textwrap

import pytest
from backends import Harness
from microsandbox import (
    ExecFailedError,
    InvalidConfigError,
    JobError,
    LogReadSource,
    Sandbox,
    Stdin,
)

pytestmark = pytest.mark.needs("jobs")


async def test_a_job_is_found_again_by_its_id(shared_harness: Harness, shared_box: Sandbox) -> None:
    job = await shared_box.exec_detached("sh", ["-c", "read line; echo got $line; exit 3"], stdin=Stdin.pipe())
    info = await job.inspect()
    assert (info.state, info.exit_code, info.finished_at, info.stdin_closed) == ("running", None, None, False)
    assert info.command == ["sh", "-c", "read line; echo got $line; exit 3"]
    assert info.pid is not None and info.runtime_boot_id
    handle = await Sandbox.get("shared", backend=shared_harness.backend)
    again = await handle.get_job(job.id)
    assert [item.id for item in (await handle.list_jobs()).items] == [job.id]
    waiting = asyncio.create_task(again.wait())
    attached = await again.attach()
    await attached.write_stdin(b"words\n")
    events = [event async for event in attached]
    assert [(event.type, event.value) for event in events[:-1]] == [("output", ("stdout", b"got words\n"))]
    assert events[-1].type == "completed"
    end = await asyncio.wait_for(waiting, 20)
    assert (end.code, end.success, end.timed_out) == (3, False, False)
    assert events[-1].value == end == await job.wait()
    info = await job.inspect()
    assert (info.state, info.exit_code, info.stdin_closed) == ("exited", 3, True)
    assert info.finished_at is not None and info.started_at is not None and info.finished_at >= info.started_at
    assert (await handle.list_jobs()).items == []
    assert job.id in [item.id for item in (await handle.list_jobs(all=True)).items]


@pytest.mark.hazard("X7")
async def test_a_job_outlives_the_process_that_started_it(box: Sandbox, harness: Harness) -> None:
    if harness.kind == "cloud":
        connect = f"CloudBackend({harness.backend.url!r}, {harness.server.key!r})"
    else:
        connect = f"LocalBackend(home={str(harness.home)!r})"
    program = f"""
        import asyncio
        from microsandbox import *

        async def main():
            async with {connect}:
                sandbox = await (await Sandbox.get("box")).connect()
                job = await sandbox.exec_detached("sh", ["-c", "sleep 0.5; echo done"])
                print(job.id)

        asyncio.run(main())
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(program), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0
    job = await box.get_job(out.decode().strip())
    assert (await asyncio.wait_for(job.wait(), 20)).success
    entries = [entry async for entry in await job.follow_logs()]
    assert b"".join(entry.data for entry in entries) == b"done\n"


async def test_logs_of_a_job_are_its_own_and_end_with_it(shared_box: Sandbox) -> None:
    job = await shared_box.exec_detached("sh", ["-c", "for i in 1 2 3; do echo $i; echo e$i >&2; sleep 0.05; done"])
    await shared_box.shell("echo somebody else")
    followed = [entry async for entry in await job.log_stream(follow=True)]
    assert b"".join(entry.data for entry in followed if entry.source == "stdout") == b"1\n2\n3\n"
    assert b"".join(entry.data for entry in followed if entry.source == "stderr") == b"e1\ne2\ne3\n"
    only = [entry async for entry in await job.log_stream(follow=True, sources=[LogReadSource.STDERR])]
    assert [entry.source for entry in only] == ["stderr"] * len(only) and only
    rest = [entry async for entry in await job.log_stream(follow=True, from_cursor=followed[1].cursor)]
    assert rest == followed[2:]


async def test_history_of_a_job(shared_box: Sandbox) -> None:
    job = await shared_box.exec_detached("sh", ["-c", "echo first; sleep 0.1; echo second"])
    whole = [entry async for entry in await job.follow_logs()]
    history = await job.logs()
    assert history == whole
    assert await job.logs(tail=1) == whole[-1:]


async def test_the_tail_of_a_jobs_log_and_what_follows_it(shared_box: Sandbox) -> None:
    job = await shared_box.exec_detached(
        "sh", ["-c", "for i in 1 2 3 4 5; do echo $i; sleep 0.05; done; cat"], stdin=Stdin.pipe()
    )
    whole = []
    async for entry in await job.follow_logs():
        whole.append(entry)
        if b"5" in entry.data:
            break
    for tail in (0, 2, 50):
        assert [entry async for entry in await job.log_stream(tail=tail)] == whole[max(0, len(whole) - tail) :]
    newest = await job.follow_logs(tail=1)
    assert await anext(newest) == whole[-1]
    await job.eof()
    assert [entry async for entry in newest] == []
    for bad in (-1, True, 1.5, 2**63):
        for call in (job.log_stream, job.logs):
            with pytest.raises(ValueError, match="tail must be a whole number"):
                await call(tail=bad)  # type: ignore[arg-type]


async def test_one_client_at_a_time_and_leaving_leaves_the_job(shared_box: Sandbox) -> None:
    job = await shared_box.exec_detached("sh", ["-c", "echo early; cat"], stdin=Stdin.pipe())
    first = await job.attach()
    assert (await asyncio.wait_for(first.recv(), 20)).value == ("stdout", b"early\n")
    with pytest.raises(JobError) as caught:
        second = await job.attach()
        await second.recv()
    assert caught.value.code == "job_attached"
    await first.write_stdin(b"one\n")
    assert (await asyncio.wait_for(first.recv(), 20)).value == ("stdout", b"one\n")
    await first.detach()
    await first.detach()
    assert await first.recv() is None
    third = None
    for _ in range(200):
        # The agent hears of the leaving a moment later.
        third = await job.attach(replay_bytes=4)
        try:
            event = await third.recv()
            break
        except JobError:
            await asyncio.sleep(0.02)
    assert third is not None and event.value == ("stdout", b"one\n")
    await job.eof()
    assert [event.type for event in [e async for e in third]] == ["completed"]
    late = [event async for event in await job.attach()]
    assert b"".join(event.value[1] for event in late[:-1]) == b"early\none\n"
    assert late[-1].value.success


async def test_a_terminal_of_a_job_has_a_size_and_takes_keys(shared_box: Sandbox) -> None:
    job = await shared_box.exec_detached("sh", ["-c", "read x; stty size; echo $x"], tty=True, stdin=Stdin.pipe())
    attached = await job.attach()
    await attached.resize(33, 101)
    await attached.write_stdin(b"keys\n")
    text = b"".join([event.value[1] async for event in attached if event.type == "output"])
    assert b"33 101" in text and text.endswith(b"keys\r\n")


async def test_signals_input_as_bytes_and_time_limits(shared_box: Sandbox) -> None:
    summed = await shared_box.exec_detached("sh", ["-c", "cat; exit 5"], stdin=b"x" * 700_000)
    attached = await summed.attach(read_only=True)
    with pytest.raises(RuntimeError, match="read-only"):
        await attached.write_stdin(b"")
    assert (await summed.wait()).code == 5
    script = "trap 'exit 9' USR1; echo up; while true; do sleep 0.02; done"
    ignoring = await shared_box.exec_detached("sh", ["-c", script])
    # It is ready when it says so.
    assert (await (await ignoring.attach()).recv()).value == ("stdout", b"up\n")
    await ignoring.signal(10)
    assert (await asyncio.wait_for(ignoring.wait(), 20)).code == 9
    endless = await shared_box.exec_detached("sleep", ["600"])
    await endless.kill()
    assert (await asyncio.wait_for(endless.wait(), 20)).code == 128 + 9
    with pytest.raises(JobError, match="has ended") as caught:
        await endless.kill()
    assert (caught.value.code, caught.value.job_id) == ("ended", endless.id)
    late = await shared_box.exec_detached("sleep", ["600"], timeout=0.3)
    end = await asyncio.wait_for(late.wait(), 20)
    assert (end.timed_out, end.success) == (True, False)


async def test_what_cannot_be_is_refused(shared_box: Sandbox) -> None:
    with pytest.raises(ExecFailedError) as caught:
        await shared_box.exec_detached("/no/such/program")
    assert caught.value.kind == "not_found"
    for id in ("", "nonsense", "00000000-1", "x" * 5000):
        with pytest.raises(JobError) as missing:
            await shared_box.get_job(id)
        assert missing.value.code == "unknown_job"
    job = await shared_box.exec_detached("true")
    with pytest.raises(ValueError, match="signal must be 1 to 64"):
        await job.signal(0)
    with pytest.raises(InvalidConfigError):
        await job.attach(cursor="x")
    with pytest.raises(ValueError, match="exclude each other"):
        await job.attach(cursor="x", replay_bytes=1)
    for bad in ({"limit": 0}, {"limit": True}, {"cursor": "x"}):
        with pytest.raises(ValueError):
            await shared_box.list_jobs(**bad)


async def test_pages_of_jobs_go_from_the_newest(shared_box: Sandbox) -> None:
    jobs = [await shared_box.exec_detached("sleep", ["600"]) for _ in range(5)]
    ids, cursor = [], None
    while True:
        page = await shared_box.list_jobs(limit=2, cursor=cursor)
        ids += [item.id for item in page.items]
        if (cursor := page.next_cursor) is None:
            break
    assert ids == [job.id for job in reversed(jobs)]


async def test_jobs_end_with_the_run_of_their_sandbox(harness: Harness, box: Sandbox) -> None:
    job = await box.exec_detached("sleep", ["600"])
    done = await box.exec_detached("sh", ["-c", "exit 4"])
    await done.wait()
    waiting = asyncio.create_task((await box.get_job(job.id)).wait())
    await asyncio.sleep(0.1)
    await box.stop()
    # Who waited has seen the end that the stop made; who did not cannot know it any more.
    assert (await asyncio.wait_for(waiting, 20)).code == 128 + 15
    with pytest.raises(JobError) as caught:
        await job.wait()
    assert (caught.value.code, caught.value.job_id) == ("lost", job.id)
    again = await Sandbox.start("box", backend=harness.backend)
    # Over the new run and a job of its own.
    for later in range(2):
        info = await job.inspect()
        assert (info.state, info.exit_code, info.command) == ("lost", None, ["sleep", "600"])
        assert ((await done.inspect()).state, (await done.wait()).code) == ("exited", 4)
        if later == 0:
            await (await again.exec_detached("true")).wait()
    with pytest.raises(JobError, match="ended with the run of its sandbox"):
        await job.wait()
    assert job.id not in [item.id for item in (await again.list_jobs(all=True)).items]
    with pytest.raises(JobError, match="no job"):
        await again.get_job(job.id)


async def test_an_attachment_continues_at_a_cursor(shared_box: Sandbox) -> None:
    script = "for i in 1 2 3; do echo $i; sleep 0.05; done; read line; echo got $line >&2; exit 6"
    job = await shared_box.exec_detached("sh", ["-c", script], stdin=Stdin.pipe())
    seen = []
    async for entry in await job.follow_logs():
        seen.append(entry)
        if b"2" in entry.data:
            break
    attached = await job.attach(cursor=seen[-1].cursor)
    assert (await asyncio.wait_for(attached.recv(), 20)).value == ("stdout", b"3\n")
    with pytest.raises(JobError):
        # It takes the one place, as any attachment does.
        await (await job.attach()).recv()
    await attached.write_stdin(b"words\n")
    events = [event async for event in attached]
    assert [event.type for event in events] == ["output", "completed"]
    assert events[0].value == ("stderr", b"got words\n")
    assert events[1].value.code == 6
    assert await attached.recv() is None
    # From the end on there is nothing but the end.
    last = (await job.logs())[-1].cursor
    assert [event.type async for event in await job.attach(cursor=last)] == ["completed"]
    # More than any window holds: it is not read here, and the program is not held back.
    much = await shared_box.exec_detached("sh", ["-c", "echo go; head -c 9000000 /dev/zero"])
    # The first entry is what the agent found in the pipe: the word, and whatever came with it.
    begin = await anext(await much.follow_logs())
    rest = [e.value[1] async for e in await much.attach(cursor=begin.cursor) if e.type == "output"]
    assert begin.data + b"".join(rest) == b"go\n" + bytes(9000000)
