"""Cancelling what makes something: when the cancellation is delivered, nothing is left, on every backend."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

import pytest
from backends import Harness
from microsandbox import Sandbox, Volume
from pace import within


async def cut_off(work: Coroutine[Any, Any, Any], pause: float) -> Any:
    """The result, where `work` was faster; else nothing."""
    task = asyncio.ensure_future(work)
    await asyncio.sleep(pause)
    task.cancel()
    try:
        return await task
    except asyncio.CancelledError:
        return None


@pytest.mark.needs("processes")
async def test_a_cancelled_creation_leaves_nothing(harness: Harness) -> None:
    dice, cut = random.Random(11), 0
    for _ in range(16):
        work = Sandbox.create("box", image="host", memory=128, backend=harness.backend)
        made = await cut_off(work, dice.random() * within(0.03))
        if made is None:
            cut += 1
            assert [handle.name for handle in (await Sandbox.list(backend=harness.backend)).sandboxes] == []
        else:
            await made.destroy(force=True)
    assert cut
    # The name is free.
    assert (await (await harness.create("box")).exec("true")).success


@pytest.mark.needs("processes")
async def test_a_cancelled_start_leaves_a_stopped_sandbox(harness: Harness, box: Sandbox) -> None:
    dice, cut = random.Random(13), 0
    await box.stop()
    for _ in range(12):
        made = await cut_off(Sandbox.start("box", backend=harness.backend), dice.random() * within(0.03))
        if made is None:
            cut += 1
        else:
            await made.stop()
        assert (await Sandbox.get("box", backend=harness.backend)).status == "stopped"
    assert cut
    again = await Sandbox.connect_or_create("box", image="host", backend=harness.backend)
    assert (await again.exec("true")).success
    await again.stop()


@pytest.mark.needs("mounts")
async def test_a_cancelled_volume_leaves_nothing(harness: Harness) -> None:
    dice = random.Random(17)
    for _ in range(16):
        made = await cut_off(Volume.create("data", backend=harness.backend), dice.random() * within(0.004))
        if made is None:
            assert [volume.name for volume in await Volume.list(backend=harness.backend)] == []
        else:
            await Volume.remove("data", backend=harness.backend)
