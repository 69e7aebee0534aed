"""Samples of one sandbox as a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._runtime import run

if TYPE_CHECKING:
    from ._microsandbox import NativeMetricsStream, SandboxMetrics


class MetricsStream:
    """Samples at an interval, the first at once: an async iterator of `SandboxMetrics`."""

    def __init__(self, native: NativeMetricsStream) -> None:
        self._native = native

    def __aiter__(self) -> MetricsStream:
        return self

    async def __anext__(self) -> SandboxMetrics:
        sample = await run(self._native.next())
        if sample is None:
            raise StopAsyncIteration
        return sample
