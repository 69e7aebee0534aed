"""Attachments to jobs, with streams that end in an order of the test's choice."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from microsandbox._enums import ExecEventType
from microsandbox._jobs import JobAttachment


class Streams:
    """The stream of a job that has ended, its log, which has ended too, and what is known of it."""

    def discard_output(self) -> None: ...

    async def recv(self) -> Any:
        return SimpleNamespace(event_type=ExecEventType.EXITED)

    async def wait(self, id: str) -> Any:
        return [{"exit_code": 0, "timed_out": False}]

    async def __anext__(self) -> Any:
        raise StopAsyncIteration


@pytest.mark.parametrize("with_log", [True, False])
async def test_a_job_ends_once_for_its_attachment(with_log: bool) -> None:
    streams: Any = Streams()
    attached = JobAttachment(streams, streams, "j", read_only=True, log=streams if with_log else None)
    events = []
    while len(events) < 3 and (event := await attached.recv()) is not None:
        events.append(event.type)
    assert events == ["completed"]
