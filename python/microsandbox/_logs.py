"""Captured output as a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._runtime import run

if TYPE_CHECKING:
    from ._microsandbox import LogEntry, NativeLogStream


class LogStream:
    """Log entries as they come: an iterator of `LogEntry`.

    Example: `async for entry in await sb.log_stream(follow=True): print(entry.text(), end="")`
    """

    def __init__(self, native: NativeLogStream) -> None:
        self._native = native

    def __aiter__(self) -> LogStream:
        return self

    async def __anext__(self) -> LogEntry:
        entry = await run(self._native.next())
        if entry is None:
            raise StopAsyncIteration
        return entry
