"""Programs that outlive their client: what is known about them. The calls are on `Job`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union

from ._jobs import Job, JobAttachment, JobLogStream

__all__ = [
    "Job",
    "JobAttachment",
    "JobEvent",
    "JobExit",
    "JobInfo",
    "JobLogEntry",
    "JobLogStream",
    "JobPage",
    "JobState",
]

JobState = Union[Literal["starting"], Literal["running"], Literal["exited"], Literal["failed"], Literal["lost"]]


@dataclass(frozen=True)
class JobInfo:
    """A detached program; times in milliseconds since the epoch, by the guest's clock.

    `command` is cut after 4 KiB. `exit_code` is 128 + signal for one that a signal ended. `runtime_boot_id` names the
    run of the sandbox that it belongs to; when that is over, a job that was still running is `lost`. `failure` and
    `error` are for what could not be started; here that is an exception of `exec_detached`, so they are None.

    Example: `print([info.command for info in (await sb.list_jobs()).items])`
    """

    id: str
    runtime_boot_id: str
    command: Sequence[str]
    state: JobState
    tty: bool
    stdin_closed: bool
    pid: Union[int, None]
    created_at: float
    started_at: Union[float, None]
    finished_at: Union[float, None]
    exit_code: Union[int, None]
    failure: Union[Mapping[str, Any], None]
    error: Union[str, None]
    timed_out: bool


@dataclass(frozen=True)
class JobPage:
    """One page of detached programs, newest first; `next_cursor` is None on the last.

    Example: `page = await sb.list_jobs(limit=10); print(page.next_cursor)`
    """

    items: Sequence[JobInfo]
    next_cursor: Union[str, None]


@dataclass(frozen=True)
class JobExit:
    """How a detached program ended; `code` is 128 + signal for one that a signal ended.

    Example: `end = await job.wait(); print(end.code, end.timed_out)`
    """

    code: int
    success: bool
    timed_out: bool


@dataclass(frozen=True)
class JobLogEntry:
    """Captured output of a detached program; `timestamp` in milliseconds since the epoch.

    Example: `print([(entry.source, entry.data) for entry in await job.logs()])`
    """

    timestamp: float
    source: str
    data: bytes
    cursor: str


@dataclass(frozen=True)
class JobEvent:
    """Something that an attachment saw.

    `output`: `value` is a pair of the stream, `"stdout"` or `"stderr"`, and bytes. `gap`: output was rotated away
    before it was read; `value` is a text that says so. `completed`: `value` is a `JobExit`.

    Example: `print([e.value[1] async for e in attachment if e.type == "output"])`
    """

    type: Literal["output", "gap", "completed"]
    value: Any
