"""Creations and starts whose caller goes: nothing is left when the cancellation is delivered, and the name is free."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from leaks import group_name
from microsandbox import IsolationWarning, LocalBackend, Sandbox, SandboxNotFoundError, SandboxStatus
from pace import amount, within

CREATE_STEPS = ["locked", "inserted", "rootfs", "spawned", "ready", "recorded"]
START_STEPS = ["rootfs", "spawned", "ready", "recorded"]


def groups(home: Path, name: str) -> list[str]:
    wanted = group_name(home / "sandboxes" / name)
    return [place for place, _, _ in os.walk("/sys/fs/cgroup") if place.endswith(wanted)]


async def left(local: Any, home: Path, name: str) -> list[str]:
    """What there is of a sandbox, looked at without waiting for anything."""
    found = [f"record {h.name}: {h.status}" for h in (await Sandbox.list(backend=local)).sandboxes if h.name == name]
    places = (home / "sandboxes" / name, *(home / "run" / "locks").glob("*"))
    return found + [f"file {path}" for path in places if path.exists()] + groups(home, name)


async def cancelled(work: Awaitable[Any], held: Callable[[], bool]) -> None:
    task = asyncio.ensure_future(work)
    while not held():
        assert not task.done(), "the step was never reached"
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.fixture
def hold(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Callable[[], bool]]:
    """Makes creations and starts stop at a step, and says whether one has."""
    mark = tmp_path / "held"

    def at(step: str) -> Callable[[], bool]:
        mark.unlink(missing_ok=True)
        monkeypatch.setenv("MSB_FAILPOINT", f"hold.{step}" if step else "")
        monkeypatch.setenv("MSB_FAILPOINT_MARK", str(mark))
        return mark.exists

    return at


@pytest.mark.hazard("L10")
@pytest.mark.parametrize("detached", [False, True], ids=["attached", "detached"])
@pytest.mark.parametrize("step", CREATE_STEPS)
async def test_a_creation_cancelled_at_a_step_leaves_nothing(
    local: Any, home: Path, hold: Callable[[str], Callable[[], bool]], step: str, detached: bool
) -> None:
    work = Sandbox.create("box", image="host", backend=local, detached=detached)
    await cancelled(work, hold(step))
    assert await left(local, home, "box") == []
    hold("")
    box = await Sandbox.create("box", image="host", backend=local)
    await box.destroy(force=True)


@pytest.mark.parametrize("step", START_STEPS)
async def test_a_start_cancelled_at_a_step_changes_nothing(
    local: Any, home: Path, hold: Callable[[str], Callable[[], bool]], step: str
) -> None:
    box = await Sandbox.create("box", image="host", backend=local)
    await box.fs.write("/root/kept", b"mine")
    await box.stop()
    await cancelled(Sandbox.start("box", backend=local), hold(step))
    assert (await Sandbox.get("box", backend=local)).status is SandboxStatus.STOPPED
    assert groups(home, "box") == []
    hold("")
    again = await Sandbox.start("box", backend=local)
    assert await again.fs.read("/root/kept") == b"mine"
    await again.destroy(force=True)


async def test_a_second_cancellation_does_not_cut_the_undoing(
    local: Any, home: Path, hold: Callable[[str], Callable[[], bool]]
) -> None:
    held = hold("recorded")
    task = asyncio.ensure_future(Sandbox.create("box", image="host", backend=local))
    while not held():
        await asyncio.sleep(0.005)
    for _ in range(5):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await left(local, home, "box") == []


async def test_a_cancellation_during_the_undoing_is_delivered(
    local: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = ValueError("of the creation")

    async def fails_and_is_cancelled(_made: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        raise failure

    monkeypatch.setattr("microsandbox._isolation.notice", fails_and_is_cancelled)
    task = asyncio.ensure_future(Sandbox.create("box", image="host", backend=local))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await left(local, home, "box") == []


@pytest.mark.soak
async def test_creations_cancelled_at_random_leave_nothing(local: Any, home: Path) -> None:
    dice = random.Random(7)
    count = 0
    for number in range(amount(60, 600)):
        name = f"n{number % 7}"
        task = asyncio.create_task(Sandbox.create(name, image="host", memory=64, backend=local))
        await asyncio.sleep(dice.random() * within(0.025))
        task.cancel()
        try:
            await (await task).destroy(force=True)
        except asyncio.CancelledError:
            count += 1
        assert await left(local, home, name) == [], f"after {number} creations"
    assert count > 10


async def test_many_at_once_cancelled_by_a_group_leave_nothing(local: Any, home: Path) -> None:
    tasks = [asyncio.create_task(Sandbox.create(f"n{number}", image="host", backend=local)) for number in range(12)]
    await asyncio.sleep(0.03)
    for task in tasks:
        task.cancel()
    for made in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(made, Sandbox):
            await made.destroy(force=True)
    for number in range(12):
        assert await left(local, home, f"n{number}") == []


async def test_a_result_without_a_taker_is_undone(local: Any, home: Path) -> None:
    """The task is cancelled after the result has arrived at its future and before the task has run again."""
    for _ in range(20):
        task = asyncio.ensure_future(Sandbox.create("box", image="host", backend=local))
        await asyncio.sleep(0)
        waiting: Any = None
        while waiting is None or not waiting.done():
            await asyncio.sleep(0)
            waiting = task._fut_waiter or waiting  # type: ignore[attr-defined]
        was_done = task.done()
        task.cancel()
        try:
            await (await task).destroy(force=True)
        except asyncio.CancelledError:
            assert not was_done
        assert await left(local, home, "box") == []


async def test_a_cancelled_connection_ends_nothing(local: Any) -> None:
    box = await Sandbox.create("box", image="host", backend=local)
    for pause in (0, 0.001, 0.002, 0.004, 0.008):
        task = asyncio.ensure_future(Sandbox.connect_or_create("box", image="host", backend=local))
        await asyncio.sleep(pause)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert (await box.exec("true")).success
    await box.destroy(force=True)


async def test_a_warning_that_is_an_error_leaves_no_sandbox(local: Any, home: Path) -> None:
    from microsandbox import _runtime

    _runtime.noticed.clear()
    auto = LocalBackend(home=home)
    with warnings.catch_warnings():
        warnings.simplefilter("error", IsolationWarning)
        try:
            box = await Sandbox.connect_or_create("box", image="host", backend=auto)
        except IsolationWarning:
            assert await left(local, home, "box") == []
        else:
            await box.destroy(force=True)
            pytest.skip("this machine runs microVMs")


LOOP_GONE = """
async def main():
    task = asyncio.ensure_future(Sandbox.create("box", image="host", backend=backend, detached=True))
    await asyncio.sleep(float(sys.argv[1]))
    # The loop stops with the task in the middle; it is never awaited again.
"""


@pytest.mark.parametrize("pause", ["0", "0.003", "0.008", "0.012", "0.1"])
async def test_a_program_that_ends_in_a_creation_leaves_nothing(
    client: Any, local: Any, home: Path, pause: str
) -> None:
    process = client(LOOP_GONE, pause)
    _, err = process.communicate(timeout=within(30))
    assert process.returncode == 0, err
    try:
        # Finished in time: then it was the program's, which left it running on purpose.
        handle = await Sandbox.get("box", backend=local)
    except SandboxNotFoundError:
        assert await left(local, home, "box") == []
        return
    assert handle.status is SandboxStatus.RUNNING and pause == "0.1"
    await handle.kill()
    await handle.remove()


INTERRUPTED = """
import os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore")
from microsandbox import sync
backend = sync.LocalBackend(home=os.environ["MSB_HOME"], isolation="container")
os.environ["MSB_FAILPOINT"] = "hold." + sys.argv[1]
os.environ["MSB_FAILPOINT_MARK"] = os.environ["MSB_HOME"] + "/held"
def interrupt():
    while not os.path.exists(os.environ["MSB_FAILPOINT_MARK"]):
        time.sleep(0.005)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
try:
    sync.Sandbox.create("box", image="host", backend=backend, detached=True)
except KeyboardInterrupt:
    print([handle.name for handle in sync.Sandbox.list(backend=backend).sandboxes])
"""


@pytest.mark.parametrize("step", ["inserted", "spawned", "recorded"])
def test_ctrl_c_in_the_sync_face_leaves_nothing(home: Path, step: str) -> None:
    command = [sys.executable, "-c", INTERRUPTED, step]
    done = subprocess.run(command, capture_output=True, text=True, timeout=within(60))
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
    assert groups(home, "box") == [] and not (home / "sandboxes" / "box").exists()


LATE = """
import atexit, os, warnings
warnings.simplefilter("ignore")
def last():
    # After the library's own function, which ends its threads: everything is made anew.
    print(box.shell("echo late").stdout_text.strip(), box.fs.read("/root/early").decode())
    box.destroy(force=True)
    print("ok")
atexit.register(last)
from microsandbox import sync
backend = sync.LocalBackend(home=os.environ["MSB_HOME"], isolation="container")
box = sync.Sandbox.create("x", image="host", detached=True, backend=backend)
box.fs.write("/root/early", b"early")
"""


@pytest.mark.soak
def test_a_cleanup_after_the_librarys_own_works(home: Path) -> None:
    for _ in range(amount(5, 100)):
        done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, timeout=within(60))
        assert done.stdout == "late early\nok\n", done.stderr
