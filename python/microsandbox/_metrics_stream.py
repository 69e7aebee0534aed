"""Samples of one sandbox as a stream."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from ._runtime import run

if TYPE_CHECKING:
    from ._microsandbox import NativeMetricsStream, SandboxMetrics

#: Samples that a notebook's picture shows.
_WINDOW = 300


class MetricsStream:
    """Samples at an interval, the first immediately: an iterator of `SandboxMetrics`.

    In a notebook it shows the newest 300 samples that were read as curves; `show` keeps them moving.

    Example: `async for sample in await sb.metrics_stream(): print(sample.cpu_percent)`
    """

    def __init__(self, native: NativeMetricsStream) -> None:
        self._native = native
        self._seen: deque[SandboxMetrics] = deque(maxlen=_WINDOW)

    def __aiter__(self) -> MetricsStream:
        return self

    async def __anext__(self) -> SandboxMetrics:
        sample = await run(self._native.next())
        if sample is None:
            raise StopAsyncIteration
        self._seen.append(sample)
        return sample

    async def show(self, samples: int | None = None) -> None:
        """Reads `samples` of them (until the sandbox ends if None) and shows them as they come.

        In a notebook that is a moving picture, in a terminal one line on standard error, in a script nothing.

        Example: `await (await sb.metrics_stream(0.5)).show(20)`
        """
        from ._progress import Display

        with Display() as display:
            read = 0
            async for sample in self:
                read += 1
                display.update(self, f"cpu {sample.cpu_percent:.0f} %  memory {sample.memory_bytes >> 20} MiB")
                if samples is not None and read >= samples:
                    return

    def _repr_html_(self) -> str:
        from . import _notebook

        return _notebook.metrics(list(self._seen))
