"""Creation, ends, removal, ownership and handles: the same on every backend."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from backends import Harness
from microsandbox import (
    Sandbox,
    SandboxAlreadyExistsError,
    SandboxHandle,
    SandboxNotFoundError,
    SandboxNotRunningError,
    SandboxReplacedError,
    SandboxStatus,
    SandboxStillRunningError,
)
from pace import within

# Seconds; long enough for the first call to come in time on a machine that is busy with other things.
IDLE = max(2, within(0.6))


async def test_create_gives_a_running_sandbox(harness: Harness) -> None:
    box = await harness.create("box")
    assert await box.name == "box"
    assert await box.owns_lifecycle is harness.has("ownership")
    handle = await Sandbox.get("box", backend=harness.backend)
    assert isinstance(handle, SandboxHandle)
    assert handle.status is SandboxStatus.RUNNING


async def test_a_taken_name_is_refused(shared_harness: Harness) -> None:
    with pytest.raises(SandboxAlreadyExistsError, match="sandbox already exists: shared") as caught:
        await Sandbox.create("shared", image="host", backend=shared_harness.backend)
    assert isinstance(caught.value, FileExistsError)
    assert caught.value.code == "sandbox-already-exists"


async def test_replace_makes_a_new_sandbox(harness: Harness, box: Sandbox) -> None:
    await box.fs.write("/tmp/old", b"x")
    first = await box.id
    again = await harness.create("box", replace=True)
    assert await again.id != first
    assert not await again.fs.exists("/tmp/old")


async def test_replace_of_a_stopped_sandbox(harness: Harness, box: Sandbox) -> None:
    await box.stop()
    again = await harness.create("box", replace=True)
    assert (await Sandbox.get("box", backend=harness.backend)).status is SandboxStatus.RUNNING
    await again.stop()


async def test_missing_names_are_not_found(harness: Harness) -> None:
    for call in (
        lambda: Sandbox.get("nobody", backend=harness.backend),
        lambda: Sandbox.start("nobody", backend=harness.backend),
        lambda: Sandbox.remove("nobody", backend=harness.backend),
    ):
        with pytest.raises(SandboxNotFoundError, match="sandbox not found: nobody") as caught:
            await call()
        assert isinstance(caught.value, LookupError)


async def test_stop_keeps_the_record_and_is_repeatable(harness: Harness, box: Sandbox) -> None:
    await box.stop()
    handle = await Sandbox.get("box", backend=harness.backend)
    assert handle.status is SandboxStatus.STOPPED and handle.last_error is None
    await box.stop()
    await handle.stop()
    await handle.kill()


async def test_a_stopped_sandbox_refuses_work(harness: Harness, box: Sandbox) -> None:
    await box.stop()
    with pytest.raises(SandboxNotRunningError):
        await box.exec("true")
    with pytest.raises(SandboxNotRunningError):
        await box.fs.read("/etc/hostname")
    with pytest.raises(SandboxNotRunningError):
        await (await Sandbox.get("box", backend=harness.backend)).connect()


async def test_start_boots_with_the_stored_configuration_and_files(harness: Harness) -> None:
    box = await harness.create("box", env={"GREETING": "hello"}, labels={"team": "red"})
    await box.fs.write("/root/kept", b"still here")
    await box.stop()
    again = await Sandbox.start("box", backend=harness.backend)
    assert await again.fs.read("/root/kept") == b"still here"
    config = json.loads((await Sandbox.get("box", backend=harness.backend)).config_json)
    assert {"key": "GREETING", "value": "hello" if harness.has("values") else ""} in config["env"]
    assert config["labels"] == {"team": "red"}


async def test_start_of_a_running_sandbox_is_refused(shared_harness: Harness) -> None:
    with pytest.raises(SandboxStillRunningError, match="sandbox still running: shared"):
        await Sandbox.start("shared", backend=shared_harness.backend)


async def test_remove_refuses_a_running_sandbox(harness: Harness, box: Sandbox) -> None:
    with pytest.raises(SandboxStillRunningError):
        await Sandbox.remove("box", backend=harness.backend)
    await box.stop()
    await Sandbox.remove("box", backend=harness.backend)
    with pytest.raises(SandboxNotFoundError):
        await Sandbox.get("box", backend=harness.backend)


@pytest.mark.needs("force")
async def test_kill_ends_immediately(harness: Harness, box: Sandbox) -> None:
    begin = time.monotonic()
    await box.kill()
    assert time.monotonic() - begin < within(5)
    status = (await Sandbox.get("box", backend=harness.backend)).status
    assert status in (SandboxStatus.STOPPED, SandboxStatus.CRASHED)


async def test_request_stop_returns_and_wait_sees_the_end(harness: Harness, box: Sandbox) -> None:
    await box.request_stop()
    result = await asyncio.wait_for(box.wait_until_stopped(), within(20))
    assert result.name == "box"
    assert result.status is SandboxStatus.STOPPED
    assert result.observed_at > 1.6e12


@pytest.mark.needs("force")
async def test_request_kill_then_wait(harness: Harness, box: Sandbox) -> None:
    handle = await Sandbox.get("box", backend=harness.backend)
    await handle.request_kill()
    result = await asyncio.wait_for(handle.wait_until_stopped(), within(20))
    assert result.status in (SandboxStatus.STOPPED, SandboxStatus.CRASHED)


@pytest.mark.needs("force")
async def test_stop_with_zero_timeout_kills(harness: Harness, box: Sandbox) -> None:
    begin = time.monotonic()
    await box.stop(timeout=0)
    assert time.monotonic() - begin < within(5)
    assert (await Sandbox.get("box", backend=harness.backend)).status is not SandboxStatus.RUNNING


async def test_leaving_the_block_kills_and_removes(harness: Harness) -> None:
    async with await harness.create("box") as box:
        await box.fs.write("/tmp/x", b"1")
    with pytest.raises(SandboxNotFoundError):
        await Sandbox.get("box", backend=harness.backend)
    with pytest.raises(RuntimeError, match="sandbox has been consumed"):
        await box.exec("true")


async def test_an_exception_leaves_the_block_unchanged(harness: Harness) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with await harness.create("box"):
            raise KeyError("mine")
    with pytest.raises(SandboxNotFoundError):
        await Sandbox.get("box", backend=harness.backend)


async def test_connect_does_not_own(shared_harness: Harness, shared_box: Sandbox) -> None:
    other = await (await Sandbox.get("shared", backend=shared_harness.backend)).connect()
    assert await other.owns_lifecycle is False
    await other.fs.write("/tmp/shared", b"by the other")
    assert await shared_box.fs.read("/tmp/shared") == b"by the other"


async def test_detached_sandboxes_are_not_owned(harness: Harness) -> None:
    box = await harness.create("box", detached=True)
    assert await box.owns_lifecycle is False


async def test_detach_gives_up_ownership(harness: Harness, box: Sandbox) -> None:
    await box.detach()
    with pytest.raises(RuntimeError, match="sandbox has been consumed"):
        await box.exec("true")
    assert (await Sandbox.get("box", backend=harness.backend)).status is SandboxStatus.RUNNING


async def test_a_handle_is_a_snapshot_until_refreshed(harness: Harness, box: Sandbox) -> None:
    handle = await Sandbox.get("box", backend=harness.backend)
    await box.stop()
    assert handle.status is SandboxStatus.RUNNING
    fresh = await handle.refresh()
    assert fresh.status is SandboxStatus.STOPPED
    assert fresh.created_at is not None and fresh.updated_at is not None
    assert fresh.updated_at >= fresh.created_at


@pytest.mark.needs("config")
async def test_a_handle_carries_the_configuration(harness: Harness) -> None:
    await harness.create("box", memory=256, cpus=1, workdir="/tmp", idle_timeout=600, max_duration=900)
    handle = await Sandbox.get("box", backend=harness.backend)
    config = handle.config()
    assert config == json.loads(handle.config_json)
    assert config["name"] == "box"
    assert config["resources"]["memory_mib"] == 256
    assert config["resources"]["cpus"] == 1
    assert config["runtime"]["workdir"] == "/tmp"
    assert config["lifecycle"] == {"max_duration_secs": 900, "idle_timeout_secs": 600, "ephemeral": False}
    assert config["pull_policy"] == "IfMissing"


async def test_a_handle_of_a_replaced_sandbox_refuses_to_remove(harness: Harness, box: Sandbox) -> None:
    old = await Sandbox.get("box", backend=harness.backend)
    again = await harness.create("box", replace=True)
    await again.stop()
    with pytest.raises(SandboxReplacedError):
        await old.remove()
    assert (await Sandbox.get("box", backend=harness.backend)).status is SandboxStatus.STOPPED


async def test_ephemeral_leaves_nothing(harness: Harness) -> None:
    box = await harness.create("box", ephemeral=True)
    await box.stop()
    with pytest.raises(SandboxNotFoundError):
        await Sandbox.get("box", backend=harness.backend)


async def test_twenty_creations_of_one_name_give_one_sandbox(harness: Harness) -> None:
    results = await asyncio.gather(*(harness.create("box") for _ in range(20)), return_exceptions=True)
    won = [r for r in results if isinstance(r, Sandbox)]
    lost = [r for r in results if isinstance(r, SandboxAlreadyExistsError)]
    assert len(won) == 1
    assert len(lost) == 19, [r for r in results if not isinstance(r, Sandbox | SandboxAlreadyExistsError)]


@pytest.mark.needs("processes")
async def test_max_duration_ends_the_run(harness: Harness) -> None:
    box = await harness.create("box", max_duration=1)
    result = await asyncio.wait_for(box.wait_until_stopped(), within(20))
    assert result.status in (SandboxStatus.STOPPED, SandboxStatus.CRASHED)


@pytest.mark.needs("processes")
async def test_idle_timeout_ends_an_idle_run_but_not_a_busy_one(harness: Harness) -> None:
    box = await harness.create("box", idle_timeout=IDLE)
    # Busy for longer than the timeout: the running program keeps it alive.
    output = await box.exec("sleep", [str(IDLE * 1.7)])
    assert output.exit_code == 0
    await asyncio.wait_for(box.wait_until_stopped(), within(20))


@pytest.mark.needs("processes", "touch")
async def test_touch_resets_the_idle_timer(harness: Harness) -> None:
    box = await harness.create("box", idle_timeout=IDLE)
    begin = time.monotonic()
    previous = 0
    while time.monotonic() - begin < IDLE * 2:
        touched = await box.touch()
        assert touched.activity_seq > previous
        previous = touched.activity_seq
        await asyncio.sleep(0.3)
    assert (await Sandbox.get("box", backend=harness.backend)).status is SandboxStatus.RUNNING


@pytest.mark.needs("ping")
async def test_ping_answers_until_the_end(harness: Harness, box: Sandbox) -> None:
    pong = await box.ping()
    assert pong.name == "box"
    assert pong.latency_ms >= 0
    await box.stop()
    with pytest.raises(SandboxNotRunningError):
        await box.ping()


async def test_calls_are_real_coroutines(shared_box: Sandbox) -> None:
    task = asyncio.create_task(shared_box.fs.exists("/"))
    assert await task is True
    both = asyncio.gather(shared_box.fs.exists("/tmp"), shared_box.fs.exists("/no/such"))
    first, second = await asyncio.wait_for(both, within(30))
    assert (first, second) == (True, False)


@pytest.mark.parametrize("force", [True, False])
async def test_an_object_of_a_replaced_sandbox_destroys_nothing(harness: Harness, box: Sandbox, force: bool) -> None:
    again = await harness.create("box", replace=True)
    with pytest.raises(SandboxReplacedError):
        await box.destroy(force=force)
    assert (await Sandbox.get("box", backend=harness.backend)).status is SandboxStatus.RUNNING
    assert (await again.exec("true")).exit_code == 0


async def test_who_waits_for_a_destroyed_sandbox_sees_its_end(harness: Harness, box: Sandbox) -> None:
    handle = await Sandbox.get("box", backend=harness.backend)
    waiting = asyncio.create_task(handle.wait_until_stopped())
    await asyncio.sleep(0.1)
    await box.destroy(force=True)
    result = await asyncio.wait_for(waiting, 30)
    assert result.status is SandboxStatus.STOPPED
