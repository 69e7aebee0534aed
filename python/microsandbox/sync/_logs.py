# Generated from _logs.py by python/tools/generate_sync.py: change that, not this.
"""Captured output as a stream."""
from __future__ import annotations
from typing import TYPE_CHECKING
from .._runtime import wait as run
if TYPE_CHECKING:
    from .._microsandbox import LogEntry, NativeLogStream

class LogStream:
    """Log entries as they come: an iterator of `LogEntry`.

    Example: `for entry in sb.log_stream(follow=True): print(entry.text(), end="")`
    """

    def __init__(self, native: NativeLogStream) -> None:
        self._native = native

    def __iter__(self) -> LogStream:
        return self

    def __next__(self) -> LogEntry:
        entry = run(self._native.next())
        if entry is None:
            raise StopIteration
        return entry
