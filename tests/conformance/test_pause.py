"""Pausing and going on."""

from __future__ import annotations

import asyncio

import pytest
from backends import Harness
from microsandbox import GuestFlush, Sandbox, SandboxNotRunningError, SandboxStatus

pytestmark = pytest.mark.needs("freezer")

TICKS = "while true; do echo tick; sleep 0.02; done"


async def status(harness: Harness) -> SandboxStatus:
    return (await Sandbox.get("box", backend=harness.backend)).status


async def test_a_paused_sandbox_is_frozen_and_resumes_in_place(harness: Harness, box: Sandbox) -> None:
    ticking = await box.shell_stream(TICKS)
    for _ in range(3):
        await asyncio.wait_for(ticking.recv(), 20)
    await box.pause()
    await box.pause()
    assert await status(harness) is SandboxStatus.PAUSED
    # What was on its way still comes; then nothing does.
    with pytest.raises(asyncio.TimeoutError):
        while True:
            await asyncio.wait_for(ticking.recv(), 0.5)
    await box.resume()
    await box.resume()
    assert await status(harness) is SandboxStatus.RUNNING
    assert await asyncio.wait_for(ticking.recv(), 20) is not None
    await ticking.kill()
    assert (await box.exec("echo", ["on"])).stdout_text == "on\n"


async def test_new_calls_on_a_paused_sandbox_are_refused(harness: Harness, box: Sandbox) -> None:
    await box.pause(guest_flush=GuestFlush.REQUIRED)
    handle = await Sandbox.get("box", backend=harness.backend)
    for call in (lambda: box.exec("true"), lambda: box.fs.read("/etc/passwd"), box.ping, handle.connect, box.metrics):
        with pytest.raises(Exception, match=r"(?i)paused"):
            await asyncio.wait_for(call(), 3)
    with pytest.raises(SandboxNotRunningError) as caught:
        await box.exec("true")
    assert caught.value.status is SandboxStatus.PAUSED
    await handle.resume()
    assert (await box.exec("true")).success


async def test_a_call_that_waits_outlives_the_pause(harness: Harness, box: Sandbox) -> None:
    waiting = asyncio.create_task(box.shell("sleep 0.4; echo done"))
    await asyncio.sleep(0.2)
    await box.pause()
    await asyncio.sleep(0.6)
    assert not waiting.done()
    await box.resume()
    assert (await asyncio.wait_for(waiting, 20)).stdout_text == "done\n"


@pytest.mark.parametrize("how", ["stop", "kill", "replace"])
async def test_a_paused_sandbox_can_be_ended(harness: Harness, box: Sandbox, how: str) -> None:
    await box.pause()
    if how == "replace":
        again = await harness.create("box", replace=True)
        assert (await again.exec("true")).success
        return
    await (box.stop() if how == "stop" else box.kill())
    assert await status(harness) is SandboxStatus.STOPPED
    started = await Sandbox.start("box", backend=harness.backend)
    assert (await started.exec("true")).success


async def test_what_is_not_running_cannot_be_paused(harness: Harness, box: Sandbox) -> None:
    await box.stop()
    for call in (box.pause, box.resume):
        with pytest.raises(SandboxNotRunningError):
            await call()
    with pytest.raises(TypeError, match="guest_flush"):
        await box.pause(guest_flush="perhaps")
