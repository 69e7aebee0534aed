"""Samples of what a sandbox uses."""

from __future__ import annotations

import asyncio

import pytest
from backends import Harness
from microsandbox import MetricsUnavailableError, MicrosandboxError, Sandbox, all_sandbox_metrics


@pytest.mark.needs("metrics")
async def test_a_running_sandbox_has_metrics_immediately(harness: Harness) -> None:
    box = await harness.create("box", memory=256)
    sample = await box.metrics()
    assert sample.memory_limit_bytes == 256 << 20
    assert 0 <= sample.memory_bytes <= 256 << 20
    assert sample.cpu_percent >= 0
    assert sample.uptime_ms >= 0
    assert sample.timestamp_ms > 1.6e12


@pytest.mark.needs("metrics")
async def test_the_stream_gives_its_first_item_immediately(shared_box: Sandbox) -> None:
    samples = []
    async for sample in await shared_box.metrics_stream(interval=0.1):
        samples.append(sample)
        if len(samples) == 3:
            break
    assert samples[0].timestamp_ms < samples[1].timestamp_ms < samples[2].timestamp_ms
    assert samples[0].uptime_ms <= samples[2].uptime_ms


@pytest.mark.needs("metrics")
async def test_a_stopped_sandbox_has_none(harness: Harness, box: Sandbox) -> None:
    await box.stop()
    with pytest.raises(MicrosandboxError) as caught:
        await (await Sandbox.get("box", backend=harness.backend)).metrics()
    assert not isinstance(caught.value, NotImplementedError)
    with pytest.raises((MetricsUnavailableError, RuntimeError)):
        await box.metrics()


@pytest.mark.needs("metrics")
async def test_all_metrics_are_by_name_and_of_running_ones(harness: Harness) -> None:
    await harness.create("one")
    two = await harness.create("two")
    await two.stop()
    samples = await all_sandbox_metrics(backend=harness.backend)
    assert sorted(samples) == ["one"]


@pytest.mark.alone
@pytest.mark.needs("programs")
@pytest.mark.needs("metrics")
async def test_work_shows_up_in_the_counters(shared_box: Sandbox) -> None:
    before = await shared_box.metrics()
    burner = await shared_box.exec_stream("sh", ["-c", "while :; do :; done"])
    await asyncio.sleep(1.2)
    after = await shared_box.metrics()
    await burner.kill()
    await burner.wait()
    assert after.vcpu_time_ns - before.vcpu_time_ns > 200_000_000
    assert after.cpu_percent > 10


@pytest.mark.needs("programs")
@pytest.mark.needs("metrics")
async def test_memory_in_use_shows_up(shared_box: Sandbox) -> None:
    before = (await shared_box.metrics()).memory_bytes
    handle = await shared_box.exec_stream(
        "python3", ["-c", "b = bytearray(150 << 20); print('ready', flush=True); import time; time.sleep(1000)"]
    )
    async for event in handle:
        if event.data and b"ready" in event.data:
            break
    assert (await shared_box.metrics()).memory_bytes - before > 120 << 20
    await handle.kill()
    await handle.wait()
