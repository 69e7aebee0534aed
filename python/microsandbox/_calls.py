"""What a connection and a record of a sandbox have in common."""

# mypy: disable-error-code="empty-body"

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import _deprecation, _jobs
from ._compaction import CompactKeywords
from ._enums import Isolation
from ._fork import ForkKeywords
from ._logs import LogStream
from ._runtime import STOP_TIMEOUT, eager, run
from ._signature import spelled_out
from ._unsupported import FORK, refused

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from typing_extensions import Unpack

    from ._compaction import DiskCompactionResult
    from ._enums import LogReadSource
    from ._fork import ForkOutcome
    from ._isolation_report import IsolationReport
    from ._jobs import Job
    from ._microsandbox import LogEntry, NativeHandle, NativeSandbox, SandboxMetrics, SandboxStopResult
    from ._sandbox import Sandbox
    from .jobs import JobPage


@dataclass(frozen=True)
class SandboxPingResult:
    """A round trip to the agent, in milliseconds.

    Example: `print((await sb.ping()).latency_ms)`
    """

    name: str
    latency_ms: float


@dataclass(frozen=True)
class SandboxTouchResult:
    """The new activity number, above 0.

    Example: `print((await sb.touch()).activity_seq)`
    """

    name: str
    activity_seq: int


class SandboxCalls:
    """The calls that `Sandbox` and `SandboxHandle` share."""

    @property
    def _owner(self) -> NativeSandbox | NativeHandle:
        raise NotImplementedError

    @property
    def isolation(self) -> Isolation:
        """What really separates it from its host; AUTO where the backend does not know."""
        return self._owner.isolation or Isolation.AUTO

    async def isolation_report(self) -> IsolationReport:
        """Driver, accelerator, and the state of each mechanism with its reason.

        Example: `print((await sb.isolation_report()).driver)`
        """
        return await run(self._owner.isolation_report())

    @property
    def backend_kind(self) -> str:
        """`"local"` or `"cloud"`."""
        return self._owner.backend_kind

    async def get_job(self, id: str) -> Job:
        """A detached program of this run, by its id. `JobError` (`unknown_job`) if there is none.

        Example: `job = await sb.get_job(id)`
        """
        return await _jobs.find(self._owner, id)

    async def list_jobs(self, *, all: bool = False, limit: int = 50, cursor: str | None = None) -> JobPage:
        """Detached programs, newest first; with `all` ended ones, too. `limit` is 1 to 1000.

        Example: `print([info.id for info in (await sb.list_jobs(all=True)).items])`
        """
        return await _jobs.page(self._owner, all, limit, cursor)

    async def metrics(self) -> SandboxMetrics:
        """The latest sample. Raises `MetricsDisabledError`, `MetricsUnavailableError`.

        Example: `print((await sb.metrics()).memory_bytes)`
        """
        return await run(self._owner.metrics())

    async def logs(
        self,
        tail: int | None = None,
        since_ms: float | None = None,
        until_ms: float | None = None,
        sources: list[LogReadSource] | None = None,
    ) -> list[LogEntry]:
        """Captured output of every program, oldest first.

        `since_ms` (inclusive) and `until_ms` (exclusive) are milliseconds since the epoch, `tail` keeps the newest,
        `sources` is stdout, stderr and output unless said otherwise. Entries that take more than 64 MiB of memory are
        an `OutputLimitError`; use `tail`, or `log_stream`.

        Example: `print("".join([entry.text() for entry in await sb.logs(tail=20)]))`
        """
        options = {"tail": tail, "since_ms": since_ms, "until_ms": until_ms, "sources": sources}
        return await run(self._owner.logs(options))

    async def log_stream(
        self,
        sources: list[LogReadSource] | None = None,
        since_ms: float | None = None,
        from_cursor: str | None = None,
        until_ms: float | None = None,
        follow: bool = False,
    ) -> LogStream:
        """Captured output as a stream; with `follow` until the sandbox ends. `from_cursor` resumes after that entry.

        Example: `async for entry in await sb.log_stream(follow=True): print(entry.text(), end="")`
        """
        options = {
            "sources": sources,
            "since_ms": since_ms,
            "from_cursor": from_cursor,
            "until_ms": until_ms,
            "follow": follow,
        }
        return LogStream(await run(self._owner.log_stream(options)))

    async def ping(self) -> SandboxPingResult:
        """A round trip to the agent; does not count as activity. Raises `SandboxNotRunningError`.

        Example: `print((await sb.ping()).latency_ms)`
        """
        native = self._owner
        return SandboxPingResult(native.name, await run(native.ping()))

    async def touch(self) -> SandboxTouchResult:
        """Resets the idle timer. Raises `SandboxNotRunningError`.

        Example: `print((await sb.touch()).activity_seq)`
        """
        native = self._owner
        return SandboxTouchResult(native.name, await run(native.touch()))

    async def stop(self, timeout: float | None = STOP_TIMEOUT) -> None:
        """Orderly end, forced after `timeout` seconds: 10 unless given, 0 kills, None waits without limit.

        A stopped sandbox is no error.

        Keeps the record. A cancelled wait does not end the stop.

        Example: `await sb.stop(timeout=30)`
        """
        await run(self._owner.stop(timeout))

    async def stop_with_timeout(self, timeout: float) -> None:
        """As `stop`, but never forces: `StopTimeoutError` after `timeout` seconds.

        Example: `await sb.stop_with_timeout(30)`
        """
        await run(self._owner.stop_with_timeout(timeout))

    async def kill(self, timeout: float | None = None) -> None:
        """Ends it by force and waits up to `timeout` seconds (5).

        Example: `await sb.kill()`
        """
        await run(self._owner.kill(timeout))

    async def request_stop(self) -> None:
        """Asks for an orderly end and returns.

        Example: `await sb.request_stop(); await sb.wait_until_stopped()`
        """
        await run(self._owner.request_stop())

    async def request_kill(self) -> None:
        """Asks for a forced end and returns.

        Example: `await sb.request_kill(); await sb.wait_until_stopped()`
        """
        await run(self._owner.request_kill())

    async def request_drain(self) -> None:
        """Lets running programs end, refuses new ones, and returns.

        Example: `await sb.request_drain(); await sb.wait_until_stopped()`
        """
        await run(self._owner.request_drain())

    async def wait_until_stopped(self) -> SandboxStopResult:
        """Waits for its end without asking for it.

        Example: `print((await sb.wait_until_stopped()).exit_code)`
        """
        return await run(self._owner.wait_until_stopped())

    @refused(FORK)
    @spelled_out(ForkKeywords)
    async def fork(self, name: str, **options: Unpack[ForkKeywords]) -> Sandbox:
        """A running copy. `UnsupportedError` for now.

        Example: `copy = await sb.fork("copy")`
        """

    @refused(FORK)
    @spelled_out(ForkKeywords)
    async def fork_many(self, names: Sequence[str], **options: Unpack[ForkKeywords]) -> Sequence[ForkOutcome]:
        """Several running copies. `UnsupportedError` for now.

        Example: `outcomes = await sb.fork_many(["a", "b"])`
        """

    @eager
    @spelled_out(ForkKeywords)
    def branch(self, name: str, **options: Unpack[ForkKeywords]) -> Coroutine[Any, Any, Sandbox]:
        """The older name of `fork`. `UnsupportedError` for now.

        Example: `copy = await sb.branch("copy")`
        """
        _deprecation.warn("branch()", "fork()")
        return self.fork(name, **options)

    @eager
    @spelled_out(ForkKeywords)
    def branch_many(
        self, names: Sequence[str], **options: Unpack[ForkKeywords]
    ) -> Coroutine[Any, Any, Sequence[ForkOutcome]]:
        """The older name of `fork_many`. `UnsupportedError` for now.

        Example: `outcomes = await sb.branch_many(["a", "b"])`
        """
        _deprecation.warn("branch_many()", "fork_many()")
        return self.fork_many(names, **options)

    @refused(FORK)
    @spelled_out(CompactKeywords)
    async def compact(self, **options: Unpack[CompactKeywords]) -> DiskCompactionResult:
        """Merges layers of its disk. `UnsupportedError` for now.

        Example: `print((await sb.compact(dry_run=True))["input_layers"])`
        """
