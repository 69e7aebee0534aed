"""L: who dies with whom, and what is known about it afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from boxes import identity, init_pid, runtime_pid
from clients import KILLED, Client, finish, line_of
from homes import query
from leaks import CGROUPS, read_process
from microsandbox import Sandbox, SandboxNotRunningError, SandboxStatus

Make = Callable[..., Awaitable[Any]]


async def gone(pid: int, within: float) -> None:
    deadline = time.monotonic() + within
    while (process := read_process(pid)) and process.state != "Z":
        assert time.monotonic() < deadline, f"{process} still lives after {within} s"
        await asyncio.sleep(0.01)


async def until(status: set[SandboxStatus], local: Any, within: float, name: str = "box") -> SandboxStatus:
    deadline = time.monotonic() + within
    while (now := (await Sandbox.get(name, backend=local)).status) not in status:
        assert time.monotonic() < deadline, f"still {now} after {within} s"
        await asyncio.sleep(0.01)
    return now


ENDED = {SandboxStatus.STOPPED, SandboxStatus.CRASHED}
ATTACHED = """
async def main():
    box = await Sandbox.create("box", image="host", backend=backend)
    print("up", flush=True)
    await asyncio.sleep(600)
"""
DETACHED = ATTACHED.replace('image="host"', 'image="host", detached=True')


@pytest.mark.hazard("L7")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_an_attached_sandbox_ends_with_its_creator(
    client: Client, local: Any, home: Path, number: signal.Signals
) -> None:
    creator = client(ATTACHED)
    line_of(creator, "up")
    init, runtime = init_pid(home), runtime_pid(home)
    creator.send_signal(number)
    finish(creator)
    await gone(init, 10)
    await gone(runtime, 10)
    await until(ENDED, local, 1)
    await Sandbox.remove("box", backend=local)


@pytest.mark.hazard("L7")
@pytest.mark.parametrize("way", ["os._exit(0)", "sys.exit(0)", "return", "os.abort()", "raise KeyError(1)"])
async def test_an_attached_sandbox_ends_however_its_creator_ends(
    client: Client, local: Any, home: Path, way: str
) -> None:
    code = f"""
    async def main():
        box = await Sandbox.create("box", image="host", backend=backend)
        print("up", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        {way}
    """
    creator = client(code)
    line_of(creator, "up")
    init = init_pid(home)
    assert creator.stdin is not None
    creator.stdin.write("go\n")
    creator.stdin.flush()
    finish(creator)
    await gone(init, 10)
    await until(ENDED, local, 1)
    await Sandbox.remove("box", backend=local)


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group in which 64 MiB of memory are all there is; the files of both generations."""
    for root, limit in ((CGROUPS / "memory", "memory.limit_in_bytes"), (CGROUPS, "memory.max")):
        group = root / f"msb-test-small-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        if not (group / limit).exists():
            group.rmdir()
            continue
        (group / limit).write_text(str(64 << 20))
        with contextlib.suppress(OSError):  # nothing is swapped instead, where there is swap
            (group / "memory.swap.max").write_text("0")
        yield group
        deadline = time.monotonic() + 10
        while True:  # a killed process leaves its group a moment after it was reaped
            try:
                return group.rmdir()
            except OSError:
                assert time.monotonic() < deadline, (group / "cgroup.procs").read_text()
                time.sleep(0.01)
    pytest.skip("no control group with a memory limit can be made here")


@pytest.mark.hazard("L8")
async def test_the_oom_killer_takes_the_creator(client: Client, local: Any, home: Path, small_group: Path) -> None:
    code = """
    async def main():
        box = await Sandbox.create("box", image="host", backend=backend)
        print("up", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        hoard = []
        while True:
            hoard.append(bytearray(os.urandom(1 << 20)))
    """
    creator = client(code)
    line_of(creator, "up")
    init, runtime = init_pid(home), runtime_pid(home)
    # The creator alone: its sandbox has groups of its own.
    (small_group / "cgroup.procs").write_text(str(creator.pid))
    assert creator.stdin is not None
    creator.stdin.write("go\n")
    creator.stdin.flush()
    status, _, err = finish(creator)
    assert status == KILLED, f"not killed: {status}\n{err}"
    await gone(init, 10)
    await gone(runtime, 10)
    await until(ENDED, local, 1)
    await Sandbox.remove("box", backend=local)


@pytest.mark.hazard("L6")
async def test_a_detached_sandbox_survives_the_kill_of_its_creator(client: Client, local: Any, home: Path) -> None:
    creator = client(DETACHED)
    line_of(creator, "up")
    creator.kill()
    finish(creator)
    assert (await Sandbox.get("box", backend=local)).status is SandboxStatus.RUNNING
    box = await (await Sandbox.get("box", backend=local)).connect()
    assert await box.owns_lifecycle is False
    assert (await box.exec("echo", ["still", "here"])).stdout_text == "still here\n"
    await box.stop()
    assert (await Sandbox.get("box", backend=local)).status is SandboxStatus.STOPPED
    await Sandbox.remove("box", backend=local)


@pytest.mark.hazard("L6")
async def test_detach_makes_it_survive(client: Client, local: Any) -> None:
    code = """
    async def main():
        box = await Sandbox.create("box", image="host", backend=backend)
        await box.detach()
        print("up", flush=True)
        await asyncio.sleep(600)
    """
    creator = client(code)
    line_of(creator, "up")
    creator.kill()
    finish(creator)
    box = await (await Sandbox.get("box", backend=local)).connect()
    assert (await box.exec("true")).exit_code == 0
    await box.kill()
    await Sandbox.remove("box", backend=local)


@pytest.mark.hazard("L4")
async def test_the_status_is_true_a_second_after_the_runtimes_death(make: Make, local: Any, home: Path) -> None:
    box = await make()
    init = init_pid(home)
    os.kill(runtime_pid(home), signal.SIGKILL)
    began = time.monotonic()
    assert await until(ENDED, local, 1) is SandboxStatus.CRASHED
    assert time.monotonic() - began < 1
    await gone(init, 5)
    with pytest.raises(SandboxNotRunningError):
        await box.exec("true")


@pytest.mark.hazard("L4")
async def test_a_call_in_flight_ends_when_the_runtime_dies(make: Make, home: Path) -> None:
    box = await make()
    task = asyncio.create_task(box.exec("sleep", ["600"]))
    handle = await box.exec_stream("sleep", ["600"])
    await handle.recv()
    os.kill(runtime_pid(home), signal.SIGKILL)
    began = time.monotonic()
    from microsandbox import MicrosandboxError

    with pytest.raises(MicrosandboxError):
        await asyncio.wait_for(task, 35)
    with pytest.raises(MicrosandboxError):
        await asyncio.wait_for(handle.wait(), 35)
    assert time.monotonic() - began < 35


@pytest.mark.hazard("L4")
async def test_the_agents_death_ends_the_sandbox(make: Make, local: Any, home: Path) -> None:
    await make()
    runtime = runtime_pid(home)
    os.kill(init_pid(home), signal.SIGKILL)
    await until(ENDED, local, 5)
    await gone(runtime, 5)


@pytest.mark.hazard("L5")
async def test_a_recycled_pid_is_not_our_process(make: Make, local: Any, home: Path) -> None:
    """The recorded pid now belongs to a stranger: no signal reaches it and the status does not believe it."""
    box = await make()
    await box.kill()
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        (home / "sandboxes" / "box" / "runtime").mkdir(exist_ok=True)
        columns = query(
            home,
            "select m.name, p.name from sqlite_master m join pragma_table_info(m.name) p "
            "where m.type = 'table' and p.name like '%pid%'",
        )[0]
        assert columns, "the database records no pid: the test proves nothing"
        query(
            home,
            "update sandbox set status = 'Running'",
            *(f"update {table} set {column} = {stranger.pid}" for table, column in columns),  # type: ignore[misc]
        )
        assert (await Sandbox.get("box", backend=local)).status in ENDED
        await (await Sandbox.get("box", backend=local)).kill()
        await (await Sandbox.get("box", backend=local)).stop()
        await Sandbox.remove("box", backend=local)
        assert stranger.poll() is None, "a stranger was killed"
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.hazard("L9")
async def test_an_unreaped_zombie_counts_as_dead(client: Client, local: Any, home: Path) -> None:
    """The tests are subreaper of the runtime here and do not reap before the question was answered."""
    creator = client(DETACHED)
    line_of(creator, "up")
    creator.kill()
    finish(creator)
    runtime = runtime_pid(home)
    os.kill(runtime, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while (process := read_process(runtime)) and process.state != "Z":
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    assert read_process(runtime) is not None, "it was reaped already: the test proves nothing"
    assert (await Sandbox.get("box", backend=local)).status in ENDED
    await Sandbox.remove("box", backend=local)


@pytest.mark.hazard("L7")
async def test_after_a_fork_the_childs_use_is_an_error_not_a_hang(client: Client) -> None:
    code = """
    async def main():
        box = await Sandbox.create("box", image="host", backend=backend)
        pid = os.fork()
        if pid == 0:
            import faulthandler; faulthandler.dump_traceback_later(20, exit=True)
            try:
                from microsandbox import sync
                sync.Sandbox.get("box", backend=backend)
                answer = 0
            except BaseException as error:
                answer = 0 if isinstance(error, (MicrosandboxError, RuntimeError)) else 9
            os._exit(answer)
        _, status = await asyncio.to_thread(os.waitpid, pid, 0)
        print("child", os.waitstatus_to_exitcode(status), flush=True)
        # The child's end did not end the parent's sandbox.
        print((await box.exec("echo", ["alive"])).stdout_text.strip(), flush=True)
        await box.destroy(force=True)
    """
    status, out, err = finish(client(code))
    assert (status, out) == (0, "child 0\nalive\n"), err


@pytest.mark.hazard("L3")
async def test_every_operation_in_every_state_has_a_named_result(make: Make, local: Any, home: Path) -> None:
    from microsandbox import MicrosandboxError, SandboxStillRunningError

    async def handle() -> Any:
        return await Sandbox.get("box", backend=local)

    async def outcome(call: Awaitable[Any]) -> str:
        try:
            await asyncio.wait_for(call, 20)
            return "ok"
        except MicrosandboxError as error:
            return type(error).__name__

    box = await make()
    assert await outcome((await handle()).remove()) == SandboxStillRunningError.__name__
    assert await outcome((await handle()).start()) == SandboxStillRunningError.__name__
    await box.stop()
    for state in ("stopped", "crashed"):
        if state == "crashed":
            await (await handle()).start()
            os.kill(runtime_pid(home), signal.SIGKILL)
            await until(ENDED, local, 2)
        assert await outcome((await handle()).stop()) == "ok", state
        assert await outcome((await handle()).kill()) == "ok", state
        assert await outcome((await handle()).request_stop()) == "ok", state
        assert await outcome((await handle()).wait_until_stopped()) == "ok", state
        assert await outcome((await handle()).logs()) == "ok", state
        assert await outcome((await handle()).connect()) == "SandboxNotRunningError", state
        assert await outcome((await handle()).ping()) == "SandboxNotRunningError", state
    again = await (await handle()).start()
    assert (await again.exec("true")).exit_code == 0
    await again.stop()
    assert await outcome((await handle()).remove()) == "ok"
    assert await outcome(Sandbox.remove("box", backend=local)) == "SandboxNotFoundError"


@pytest.mark.case(65)
async def test_a_stop_without_an_agent_socket_signals_the_runtime(make: Make, local: Any, home: Path) -> None:
    await make()
    init = init_pid(home)
    (home / "sandboxes" / "box" / "runtime" / "agent.sock").unlink()
    # Never forces: it is the signal that ends it.
    await (await Sandbox.get("box", backend=local)).stop_with_timeout(30)
    handle = await Sandbox.get("box", backend=local)
    assert handle.status is SandboxStatus.STOPPED
    await gone(init, 5)


@pytest.mark.hazard("L3")
async def test_remove_works_when_the_directory_is_damaged(make: Make, local: Any, home: Path) -> None:
    import shutil

    for damage in ("gone", "no runtime directory", "garbage in identity", "no work directory"):
        box = await make("box")
        await box.kill()
        directory = home / "sandboxes" / "box"
        if damage == "gone":
            shutil.rmtree(directory)
        elif damage == "no runtime directory":
            shutil.rmtree(directory / "runtime", ignore_errors=True)
        elif damage == "garbage in identity":
            (directory / "runtime").mkdir(exist_ok=True)
            (directory / "runtime" / "identity.json").write_bytes(b"\xff{")
            (directory / "runtime" / "exit.json").write_bytes(b"[]")
        else:
            shutil.rmtree(directory / "work", ignore_errors=True)
        assert (await Sandbox.get("box", backend=local)).status in ENDED, damage
        await Sandbox.remove("box", backend=local)
        assert not directory.exists(), damage


async def test_a_boot_error_carries_stage_cause_hint_and_tail(client: Client, local: Any) -> None:
    code = """
    async def main():
        try:
            await Sandbox.create("box", image="host", backend=backend)
        except BootStartError as error:
            import json
            print(json.dumps([error.name, error.stage, str(error), error.message, error.hint, error.code]), flush=True)
    """
    import json

    status, out, err = finish(client(code, MSB_FAILPOINT="runtime.mount overlay"))
    assert status == 0, err
    name, stage, text, message, hint, code_name = json.loads(out)
    assert name == "box" and code_name == "boot-start"
    assert stage and message and hint
    assert message in text and hint in text


async def test_identity_names_real_processes(make: Make, home: Path) -> None:
    await make()
    document = identity(home)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    for who in ("runtime", "init"):
        process = read_process(document[who]["pid"])
        assert process is not None
        assert process.start == document[who]["start_time"]
        assert document[who]["boot_id"] == boot
