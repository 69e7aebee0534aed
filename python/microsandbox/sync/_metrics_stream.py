# Generated from _metrics_stream.py by python/tools/generate_sync.py: change that, not this.
"""Samples of one sandbox as a stream."""
from __future__ import annotations
from typing import TYPE_CHECKING
from .._runtime import wait as run
if TYPE_CHECKING:
    from .._microsandbox import NativeMetricsStream, SandboxMetrics

class MetricsStream:
    """Samples at an interval, the first at once: an iterator of `SandboxMetrics`."""

    def __init__(self, native: NativeMetricsStream) -> None:
        self._native = native

    def __iter__(self) -> MetricsStream:
        return self

    def __next__(self) -> SandboxMetrics:
        sample = run(self._native.next())
        if sample is None:
            raise StopIteration
        return sample
