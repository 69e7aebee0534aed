"""Detached programs of a sandbox."""

from __future__ import annotations

import re
import sys
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ._enums import ExecEventType, LogReadSource, LogSource, SandboxStatus
from ._logs import LogStream
from ._runtime import run
from .errors import JobError, OutputLimitError, SandboxNotRunningError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._microsandbox import LogEntry, NativeExec, NativeHandle, NativeJobs, NativeSandbox, NativeSink
    from .jobs import JobEvent, JobExit, JobInfo, JobLogEntry, JobPage, JobState

#: What the agent says in the log after the last output of a program.
_ENDED = re.compile(rb"exec ended: .* \(session (\d+)\)")
#: Most memory of log entries that are held together (`log.read_bytes`), and what one costs besides its data.
_MAX_BYTES = 64 << 20
_ENTRY_BYTES = 512
#: What the log holds in place of output that was rotated away before it was read, or dropped beyond the log's budget.
_GAP = re.compile(rb"log rotated faster than it was read|bytes of output \(session (\d+)\) were dropped")


def of(owner: NativeSandbox | NativeHandle, known: Mapping[str, Any]) -> Job:
    """The job that a response describes."""
    return Job(owner, owner.jobs(), known)


async def find(owner: NativeSandbox | NativeHandle, id: str) -> Job:
    """The job of this id; `JobError` if this run has none."""
    (known,) = await run(owner.jobs().inspect(id))
    return of(owner, known)


async def page(owner: NativeSandbox | NativeHandle, all: bool, limit: int, cursor: str | None) -> JobPage:
    """Jobs from the newest; `cursor` is the number of the last one of the page before."""
    from .jobs import JobPage

    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= 1000:
        raise ValueError(f"limit must be 1 to 1000: got {limit!r}")
    if cursor is not None and not cursor.isdecimal():
        raise ValueError(f"cursor is not one that list_jobs gave: {cursor!r}")
    known = await run(owner.jobs().list())
    wanted = [job for job in reversed(known) if all or job["exit_code"] is None]
    wanted = [job for job in wanted if cursor is None or job["session"] < int(cursor)]
    following = str(wanted[limit - 1]["session"]) if len(wanted) > limit else None
    return JobPage([_info(job) for job in wanted[:limit]], following)


def _info(known: Mapping[str, Any]) -> JobInfo:
    from .jobs import JobInfo

    fields = {name: value for name, value in known.items() if name != "session"}
    state: JobState = "running" if known["exit_code"] is None else "exited"
    return JobInfo(**fields, state=state, created_at=known["started_at"], failure=None, error=None)


def _exit(code: int, timed_out: bool) -> JobExit:
    from .jobs import JobExit

    return JobExit(code, code == 0 and not timed_out, timed_out)


class Job:
    """A program that runs on without its client, until the program or its sandbox ends; from `Sandbox.exec_detached`.

    It is found again by its id: `Sandbox.get_job`, from any process, as long as the sandbox runs; of ended ones the
    newest 1024 are remembered. Calls on one that is not known any more raise `JobError` with the code `unknown_job`.
    One whose run has ended is `lost`: `inspect` says so, `wait` raises `JobError` with that code.

    Example: `job = await sb.exec_detached("make", ["-j2"]); print(job.id)`
    """

    def __init__(self, owner: NativeSandbox | NativeHandle, native: NativeJobs, known: Mapping[str, Any]) -> None:
        self._owner = owner
        self._native = native
        self._id: str = known["id"]
        self._session: int = known["session"]
        self._seen = _info(known)

    @property
    def id(self) -> str:
        """Names it among all jobs of all runs of its sandbox."""
        return self._id

    async def inspect(self) -> JobInfo:
        """What is known about it now; if the run of its sandbox is over, what was known last, with the state `lost`.

        Example: `print((await job.inspect()).state)`
        """
        try:
            (known,) = await run(self._native.inspect(self._id))
        except (JobError, SandboxNotRunningError) as error:
            if not await self._is_lost(error):
                raise
            return self._seen if self._seen.exit_code is not None else replace(self._seen, state="lost", pid=None)
        self._seen = _info(known)
        return self._seen

    async def _is_lost(self, error: Exception) -> bool:
        """Whether a call failed because the run that the job belongs to is over."""
        if isinstance(error, SandboxNotRunningError):
            return error.status is not SandboxStatus.PAUSED
        if not isinstance(error, JobError) or error.code != "unknown_job":
            return False
        # A run that remembers none of its jobs has had none, or is another one than ours.
        known = await run(self._native.list())
        return all(job["runtime_boot_id"] != self._seen.runtime_boot_id for job in known)

    async def wait(self) -> JobExit:
        """Waits for its end. Giving up the wait does nothing to it. `JobError` (`lost`) if its sandbox ended first.

        Example: `print((await job.wait()).code)`
        """
        try:
            (known,) = await run(self._native.wait(self._id))
        except (JobError, SandboxNotRunningError) as error:
            if not await self._is_lost(error):
                raise
            if self._seen.exit_code is None:
                text = f"job {self._id} ended with the run of its sandbox; how is not known"
                raise JobError("lost", text, self._id) from error
            return _exit(self._seen.exit_code, self._seen.timed_out)
        self._seen = _info(known)
        return _exit(known["exit_code"], known["timed_out"])

    async def signal(self, signal: int) -> None:
        """Sends a signal, 1 to 64, to its process group; 9 kills its whole tree. `JobError` if it has ended.

        Example: `await job.signal(signal.SIGTERM)`
        """
        await run(self._native.signal(self._id, signal))

    async def kill(self) -> None:
        """SIGKILL to its whole tree. `JobError` if it has ended.

        Example: `await job.kill()`
        """
        await run(self._native.signal(self._id, 9))

    async def eof(self) -> None:
        """Ends its input; Ctrl-D for a terminal. `JobError` if it is closed.

        Example: `await job.eof()`
        """
        await run(self._native.eof(self._id))

    async def attach(
        self, *, read_only: bool = False, replay_bytes: int | None = None, cursor: str | None = None
    ) -> JobAttachment:
        """Binds to its streams: first the newest `replay_bytes` of its output (all that is kept, up to 256 KiB), then
        what follows.

        With the `cursor` of a `JobLogEntry` it begins strictly after that entry instead, out of the log, which has
        every byte that was not rotated away; a `gap` event stands for what was rotated away while it was read. One
        client at a time: `JobError` with the code `job_attached` otherwise. `read_only` refuses input.
        `InvalidConfigError` for a cursor of another log, or of a place that is not kept any more.

        Example: `async for event in await job.attach(): print(event.type, event.value)`
        """
        if cursor is None:
            return JobAttachment(
                await run(self._native.attach(self._id, replay_bytes)), self._native, self._id, read_only
            )
        if replay_bytes is not None:
            raise ValueError("replay_bytes and cursor exclude each other")
        # Asked for first: a cursor that leads nowhere must not take the place of another client.
        log = await self._stream({"from_cursor": cursor}, None, True, gaps=True)
        native = await run(self._native.attach(self._id, 0))
        return JobAttachment(native, self._native, self._id, read_only, log)

    async def logs(
        self,
        *,
        tail: int | None = None,
        since: float | None = None,
        until: float | None = None,
        sources: list[LogReadSource] | None = None,
        from_cursor: str | None = None,
    ) -> list[JobLogEntry]:
        """Its captured output, oldest first; times in milliseconds since the epoch, otherwise as `Sandbox.logs`.

        Example: `print(b"".join([entry.data for entry in await job.logs(tail=10)]))`
        """
        _check_tail(tail)
        stream = self._stream({"since_ms": since, "until_ms": until, "from_cursor": from_cursor}, sources, False)
        entries: deque[JobLogEntry] = deque()
        held = 0
        async for entry in await stream:
            entries.append(entry)
            held += len(entry.data) + _ENTRY_BYTES
            if tail is not None and len(entries) > tail:
                held -= len(entries.popleft().data) + _ENTRY_BYTES
            if held > _MAX_BYTES:
                raise _too_many(held)
        return list(entries)

    async def log_stream(
        self,
        *,
        tail: int | None = None,
        since: float | None = None,
        until: float | None = None,
        sources: list[LogReadSource] | None = None,
        from_cursor: str | None = None,
        follow: bool = False,
    ) -> JobLogStream:
        """As `logs`, entry by entry; with `follow` until the job has ended and its last entry was given.

        Example: `async for entry in await job.log_stream(tail=10, follow=True): print(entry.data)`
        """
        _check_tail(tail)
        options = {"since_ms": since, "until_ms": until, "from_cursor": from_cursor}
        if tail is not None:
            start = await self._start_of_tail(tail, options, sources)
            options["from_cursor"] = start or options["from_cursor"]
        return await self._stream(options, sources, follow)

    async def _start_of_tail(
        self, tail: int, options: dict[str, Any], sources: list[LogReadSource] | None
    ) -> str | None:
        """The position after which the newest `tail` entries follow; None where all entries belong to them."""
        newest: deque[str] = deque(maxlen=tail + 1)
        async for entry in await self._stream(options, sources, False):
            newest.append(entry.cursor)
        return newest[0] if len(newest) > tail else None

    async def follow_logs(
        self,
        *,
        tail: int | None = None,
        since: float | None = None,
        until: float | None = None,
        sources: list[LogReadSource] | None = None,
        from_cursor: str | None = None,
    ) -> JobLogStream:
        """`log_stream` with `follow`.

        Example: `async for entry in await job.follow_logs(tail=10): print(entry.data)`
        """
        return await self.log_stream(
            tail=tail, since=since, until=until, sources=sources, from_cursor=from_cursor, follow=True
        )

    async def _stream(
        self, options: dict[str, Any], sources: list[LogReadSource] | None, follow: bool, gaps: bool = False
    ) -> JobLogStream:
        # The agent's word about the end comes after the last output, in the same log.
        native = await run(self._owner.log_stream({**options, "sources": [LogReadSource.ALL], "follow": follow}))
        return JobLogStream(LogStream(native), self._session, sources, gaps)

    def __repr__(self) -> str:
        return f"Job(id={self._id!r})"


class JobLogStream:
    """Captured output of one job: an iterator of `JobLogEntry`.

    Example: `async for entry in job_logs: print(entry.data)`
    """

    def __init__(
        self, stream: LogStream, session: int, sources: list[LogReadSource] | None, gaps: bool = False
    ) -> None:
        self._stream = stream
        self._session = session
        self._gaps = gaps
        self._over = False
        chosen = sources or [LogReadSource.STDOUT, LogReadSource.STDERR, LogReadSource.OUTPUT]
        self._sources = {str(source) for source in chosen}

    def __aiter__(self) -> JobLogStream:
        return self

    async def __anext__(self) -> JobLogEntry:
        while not self._over:
            entry = await self._stream.__anext__()
            if entry.session_id == self._session and self._wants(entry):
                return _entry(entry)
            if self._gaps and entry.source is LogSource.SYSTEM and self._is_gap(entry):
                return _entry(entry)
            self._over = self._is_end(entry)
        raise StopAsyncIteration

    def _wants(self, entry: LogEntry) -> bool:
        return bool({entry.source.value, "all"} & self._sources)

    def _is_gap(self, entry: LogEntry) -> bool:
        said = _GAP.search(entry.data)
        return said is not None and said.group(1) in (None, str(self._session).encode())

    def _is_end(self, entry: LogEntry) -> bool:
        said = _ENDED.search(entry.data) if entry.source is LogSource.SYSTEM else None
        return said is not None and int(said.group(1)) == self._session

    async def close(self) -> None:
        """Closes the stream. Idempotent.

        Example: `await job_logs.close()`
        """
        self._over = True


def _check_tail(tail: int | None) -> None:
    most = sys.maxsize - 1
    if tail is not None and (isinstance(tail, bool) or not isinstance(tail, int) or not 0 <= tail <= most):
        raise ValueError(f"tail must be a whole number of entries, 0 to {most}: got {tail!r}")


def _too_many(held: int) -> OutputLimitError:
    text = (
        f"the log of the job takes more than {_MAX_BYTES} bytes of memory (log.read_bytes); pass tail= or since=, or "
        "use log_stream"
    )
    error = OutputLimitError(text)
    error.limit, error.kept, error.dropped = _MAX_BYTES, 0, held
    return error


def _entry(entry: LogEntry) -> JobLogEntry:
    from .jobs import JobLogEntry

    return JobLogEntry(entry.timestamp_ms, entry.source.value, entry.data, entry.cursor)


class JobAttachment:
    """The streams of a job: an iterator of `JobEvent`, ended by `completed`. The job runs on after a detach.

    Example: `attachment = await job.attach(); await attachment.write_stdin(b"yes\\n")`
    """

    def __init__(
        self, native: NativeExec, jobs: NativeJobs, id: str, read_only: bool, log: JobLogStream | None = None
    ) -> None:
        self._native: NativeExec | None = native
        self._sink: NativeSink | None = None if read_only else native.take_stdin()
        self._log = log
        if log is not None:
            native.discard_output()
        self._jobs = jobs
        self._id = id
        # The log and the stream both have an end.
        self._over = False

    def __aiter__(self) -> JobAttachment:
        return self

    async def __anext__(self) -> JobEvent:
        event = await self.recv()
        if event is None:
            raise StopAsyncIteration
        return event

    async def recv(self) -> JobEvent | None:
        """The next event; None after the last, and once detached.

        Example: `event = await attachment.recv()`
        """
        from .jobs import JobEvent

        if self._over:
            return None
        while self._native is not None and self._log is not None:
            try:
                entry = await self._log.__anext__()
            except StopAsyncIteration:
                self._log = None
                return await self._completed()
            if entry.source == "system":
                return JobEvent("gap", entry.data.decode())
            return JobEvent("output", ("stderr" if entry.source == "stderr" else "stdout", entry.data))
        while self._native is not None:
            event = await run(self._native.recv())
            if event is None:
                break
            if event.event_type in (ExecEventType.STDOUT, ExecEventType.STDERR):
                return JobEvent("output", (event.event_type.value, event.data))
            if event.event_type is ExecEventType.EXITED:
                return await self._completed()
        return None

    async def _completed(self) -> JobEvent:
        from .jobs import JobEvent

        (known,) = await run(self._jobs.wait(self._id))
        self._over = True
        return JobEvent("completed", _exit(known["exit_code"], known["timed_out"]))

    async def write_stdin(self, data: bytes) -> None:
        """Sends input; waits while the program does not read. `RuntimeError` if read-only or detached.

        Example: `await attachment.write_stdin(b"yes\\n")`
        """
        if self._sink is None:
            raise RuntimeError("this attachment takes no input: it is read-only or detached")
        await run(self._sink.write(data))

    async def resize(self, rows: int, cols: int) -> None:
        """Tells a job with `tty=True` the size of its terminal.

        Example: `await attachment.resize(40, 120)`
        """
        if self._native is None:
            raise RuntimeError("this attachment is detached")
        await run(self._native.resize(rows, cols))

    async def detach(self) -> None:
        """Detaches; the job runs on. Idempotent.

        Example: `await attachment.detach()`
        """
        self._native = None
        self._sink = None
        self._log = None
