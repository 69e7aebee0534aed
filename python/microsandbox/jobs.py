"""Detached processes, as they will be: values only, no call of this build makes one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union

from ._unsupported import JOBS, unsupported

__all__ = ["Job", "JobEvent", "JobExit", "JobInfo", "JobLogEntry", "JobPage", "JobState"]

JobState = Union[Literal["starting"], Literal["running"], Literal["exited"], Literal["failed"], Literal["lost"]]


@dataclass(frozen=True)
class JobInfo:
    """A detached process; times in milliseconds since the epoch."""

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
    """One page of detached processes."""

    items: Sequence[JobInfo]
    next_cursor: Union[str, None]


@dataclass(frozen=True)
class JobExit:
    """How a detached process ended."""

    code: int
    success: bool
    timed_out: bool


@dataclass(frozen=True)
class JobLogEntry:
    """Captured output of a detached process."""

    timestamp: float
    source: str
    data: bytes
    cursor: str


@dataclass(frozen=True)
class JobEvent:
    """Something that happened to a detached process."""

    type: Literal["output", "gap", "completed"]
    value: Any


class Job:
    """A detached process. `UnsupportedError` for now."""

    def __init__(self) -> None:
        raise unsupported("Job", JOBS)
