"""The record of a sandbox, and the small values around it."""

# mypy: disable-error-code="empty-body"

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Union

from . import _checks, _deprecation, _isolation, _jobs, _modify
from ._compaction import CompactKeywords
from ._enums import GuestFlush, Isolation, LogReadSource, SandboxStatus
from ._fork import ForkKeywords
from ._logs import LogStream
from ._modify import ModifyKeywords
from ._runtime import STOP_TIMEOUT, eager, run
from ._signature import spelled_out
from ._unsupported import FORK, SNAPSHOTS, STORAGE, refused, unsupported

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from typing_extensions import Unpack

    from ._compaction import DiskCompactionResult
    from ._fork import ForkOutcome
    from ._isolation_report import IsolationReport
    from ._jobs import Job
    from ._microsandbox import LogEntry, NativeHandle, NativeSandbox, SandboxMetrics, SandboxStopResult
    from ._modify import SandboxModificationPlan
    from ._sandbox import Sandbox
    from ._snapshot import Snapshot
    from ._storage import StorageItemUsage
    from .jobs import JobPage


@dataclass(frozen=True)
class SandboxPage:
    """One page of records, newest first; `next_cursor` is None on the last.

    Example: `page = await Sandbox.list(); print(len(page.sandboxes), page.next_cursor)`
    """

    sandboxes: list[SandboxHandle]
    next_cursor: Union[str, None] = None


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


class SandboxHandle:
    """A record as it was read, plus lifecycle by name. Needs no running sandbox.

    Example: `for handle in (await Sandbox.list()).sandboxes: print(handle.name, handle.status)`
    """

    def __init__(self, native: NativeHandle) -> None:
        self._native = native

    @property
    def name(self) -> str:
        """Name of the sandbox."""
        return self._native.name

    @property
    def id(self) -> str:
        """Its identity: differs from that of a later sandbox of the same name."""
        return self._native.id

    @property
    def status(self) -> SandboxStatus:
        """Its status as of the read; `refresh` reads again."""
        return self._native.status

    @property
    def status_snapshot(self) -> SandboxStatus:
        """The same as `status`."""
        return self._native.status

    @property
    def last_error(self) -> str | None:
        """What ended it last, as far as the backend knows."""
        return self._native.last_error

    @property
    def isolation(self) -> Isolation:
        """What really separates it from its host; AUTO where the backend does not know."""
        return self._native.isolation or Isolation.AUTO

    async def isolation_report(self) -> IsolationReport:
        """Driver, accelerator, and the state of each mechanism with its reason.

        Example: `print((await handle.isolation_report()).driver)`
        """
        return await run(self._native.isolation_report())

    @property
    def config_json(self) -> str:
        """The stored configuration as JSON."""
        return self._native.config_json

    def config(self) -> dict[str, Any]:
        """The stored configuration. `UnsupportedError` on the cloud, whose answer is not the creator's configuration:
        its own view is in `config_json`.

        Example: `print(handle.config()["resources"]["memory_mib"])`
        """
        if self._native.backend_kind == "cloud":
            raise unsupported("SandboxHandle::config on cloud", "when SandboxConfig is the cloud wire shape")
        parsed: dict[str, Any] = json.loads(self._native.config_json)
        return parsed

    @property
    def created_at(self) -> float | None:
        """Milliseconds since the epoch."""
        return self._native.created_at

    @property
    def updated_at(self) -> float | None:
        """Milliseconds since the epoch."""
        return self._native.updated_at

    @property
    def backend_kind(self) -> str:
        """`"local"` or `"cloud"`."""
        return self._native.backend_kind

    async def refresh(self) -> SandboxHandle:
        """The record, read again; this object stays as it is. Raises `SandboxNotFoundError`.

        Example: `handle = await handle.refresh()`
        """
        return SandboxHandle(await run(self._native.refresh()))

    async def connect(self, timeout: float | None = None) -> Sandbox:
        """A connection that does not own the sandbox, within `timeout` seconds (10).

        Raises `SandboxNotRunningError` when the record says so; `refresh` it first if it is old.

        Example: `sb = await handle.connect()`
        """
        return _sandbox(await run(self._native.connect(timeout)))

    async def start(self, *, detached: bool = False) -> Sandbox:
        """Boots it with its stored configuration.

        Example: `sb = await handle.start(detached=True)`
        """
        native = await run(self._native.start(detached))
        await _isolation.notice(native)
        return _sandbox(native)

    async def connect_or_start(self, *, detached: bool = False) -> Sandbox:
        """Connects to it if it runs, else starts it.

        Example: `sb = await handle.connect_or_start()`
        """
        native = await run(self._native.connect_or_start(detached))
        await _isolation.notice(native)
        return _sandbox(native)

    async def stop(self, timeout: float | None = STOP_TIMEOUT) -> None:
        """Orderly end, forced after `timeout` seconds: 10 unless given, 0 kills, None waits without limit.

        A stopped sandbox is no error.

        Example: `await handle.stop(timeout=30)`
        """
        await run(self._native.stop(timeout))

    async def stop_with_timeout(self, timeout: float) -> None:
        """As `stop`, but never forces: `StopTimeoutError` after `timeout` seconds.

        Example: `await handle.stop_with_timeout(30)`
        """
        await run(self._native.stop_with_timeout(timeout))

    async def kill(self, timeout: float | None = None) -> None:
        """Ends it by force and waits up to `timeout` seconds (5).

        Example: `await handle.kill()`
        """
        await run(self._native.kill(timeout))

    async def request_stop(self) -> None:
        """Asks for an orderly end and returns.

        Example: `await handle.request_stop(); await handle.wait_until_stopped()`
        """
        await run(self._native.request_stop())

    async def request_kill(self) -> None:
        """Asks for a forced end and returns.

        Example: `await handle.request_kill(); await handle.wait_until_stopped()`
        """
        await run(self._native.request_kill())

    async def get_job(self, id: str) -> Job:
        """As `Sandbox.get_job`.

        Example: `job = await handle.get_job(id)`
        """
        return await _jobs.find(self._native, id)

    async def list_jobs(self, *, all: bool = False, limit: int = 50, cursor: str | None = None) -> JobPage:
        """As `Sandbox.list_jobs`.

        Example: `print([info.id for info in (await handle.list_jobs(all=True)).items])`
        """
        return await _jobs.page(self._native, all, limit, cursor)

    @spelled_out(ModifyKeywords)
    async def modify(self, **options: Unpack[ModifyKeywords]) -> SandboxModificationPlan:
        """As `Sandbox.modify`; needs no running sandbox.

        Example: `plan = await handle.modify(memory=1024, dry_run=True)`
        """
        return _modify.plan(await run(self._native.modify(_modify.request(options))))

    @refused(FORK)
    @spelled_out(ForkKeywords)
    async def fork(self, name: str, **options: Unpack[ForkKeywords]) -> Sandbox:
        """A running copy. `UnsupportedError` for now.

        Example: `copy = await handle.fork("copy")`
        """

    @refused(FORK)
    @spelled_out(ForkKeywords)
    async def fork_many(self, names: Sequence[str], **options: Unpack[ForkKeywords]) -> Sequence[ForkOutcome]:
        """Several running copies. `UnsupportedError` for now.

        Example: `outcomes = await handle.fork_many(["a", "b"])`
        """

    @eager
    @spelled_out(ForkKeywords)
    def branch(self, name: str, **options: Unpack[ForkKeywords]) -> Coroutine[Any, Any, Sandbox]:
        """The older name of `fork`. `UnsupportedError` for now.

        Example: `copy = await handle.branch("copy")`
        """
        _deprecation.warn("branch()", "fork()")
        return self.fork(name, **options)

    @eager
    @spelled_out(ForkKeywords)
    def branch_many(
        self, names: Sequence[str], **options: Unpack[ForkKeywords]
    ) -> Coroutine[Any, Any, Sequence[ForkOutcome]]:
        """The older name of `fork_many`. `UnsupportedError` for now.

        Example: `outcomes = await handle.branch_many(["a", "b"])`
        """
        _deprecation.warn("branch_many()", "fork_many()")
        return self.fork_many(names, **options)

    @refused(FORK)
    @spelled_out(CompactKeywords)
    async def compact(self, **options: Unpack[CompactKeywords]) -> DiskCompactionResult:
        """Merges layers of its disk. `UnsupportedError` for now.

        Example: `print((await handle.compact(dry_run=True))["input_layers"])`
        """

    async def snapshot(self, name: str) -> Snapshot:
        """Saves its disk. `UnsupportedError` for now.

        Example: `snapshot = await handle.snapshot("base")`
        """
        if self.backend_kind == "cloud":
            raise unsupported("SandboxHandle::snapshot on cloud", "when cloud snapshots land")
        raise unsupported("SandboxHandle.snapshot", SNAPSHOTS)

    @refused(STORAGE)
    async def storage_usage(self) -> StorageItemUsage:
        """Its disk space. `UnsupportedError` for now.

        Example: `print((await handle.storage_usage()).allocated_bytes)`
        """

    async def pause(self, *, guest_flush: GuestFlush | None = None) -> None:
        """As `Sandbox.pause`. `guest_flush=REQUIRED` needs a connection: use `Sandbox.pause` for that.

        Example: `await handle.pause()`
        """
        wanted = _checks.checked(guest_flush, GuestFlush, "guest_flush")
        if wanted is GuestFlush.REQUIRED:
            raise unsupported("SandboxHandle.pause(guest_flush=REQUIRED)", "on a connection: Sandbox.pause")
        await run(self._native.pause())

    async def resume(self) -> None:
        """As `Sandbox.resume`.

        Example: `await handle.resume()`
        """
        await run(self._native.resume())

    async def request_drain(self) -> None:
        """Lets running programs end, refuses new ones, and returns.

        Example: `await handle.request_drain(); await handle.wait_until_stopped()`
        """
        await run(self._native.request_drain())

    async def restart(self, *, force: bool = False, timeout: float | None = None, detached: bool = False) -> Sandbox:
        """Stops (or kills) it and starts it again.

        Example: `sb = await handle.restart()`
        """
        await (self.kill(timeout) if force else self.stop(STOP_TIMEOUT if timeout is None else timeout))
        return await self.start(detached=detached)

    async def destroy(self, *, force: bool = False, timeout: float | None = None) -> None:
        """Stops (or kills) it and removes it.

        Example: `await handle.destroy(force=True)`
        """
        await (self.kill(timeout) if force else self.stop(STOP_TIMEOUT if timeout is None else timeout))
        await run(self._native.remove())

    async def wait_until_stopped(self) -> SandboxStopResult:
        """Waits for its end without asking for it.

        Example: `print((await handle.wait_until_stopped()).exit_code)`
        """
        return await run(self._native.wait_until_stopped())

    async def wait_for_status(self, status: SandboxStatus) -> SandboxHandle:
        """Waits until `status` is seen.

        Example: `handle = await handle.wait_for_status(SandboxStatus.RUNNING)`
        """
        return SandboxHandle(await run(self._native.wait_for_status(status)))

    async def remove(self) -> None:
        """Deletes it: record, disk and logs. Refuses to act on a later sandbox of the same name.

        Raises `SandboxStillRunningError`, `SandboxNotFoundError`, `SandboxReplacedError`.

        Example: `await handle.remove()`
        """
        await run(self._native.remove())

    async def metrics(self) -> SandboxMetrics:
        """The latest sample. Raises `MetricsDisabledError`, `MetricsUnavailableError`.

        Example: `print((await handle.metrics()).memory_bytes)`
        """
        return await run(self._native.metrics())

    async def logs(
        self,
        tail: int | None = None,
        since_ms: float | None = None,
        until_ms: float | None = None,
        sources: list[LogReadSource] | None = None,
    ) -> list[LogEntry]:
        """Captured output, running or not; as `Sandbox.logs`.

        Example: `print("".join([entry.text() for entry in await handle.logs(tail=20)]))`
        """
        options = {"tail": tail, "since_ms": since_ms, "until_ms": until_ms, "sources": sources}
        return await run(self._native.logs(options))

    async def log_stream(
        self,
        sources: list[LogReadSource] | None = None,
        since_ms: float | None = None,
        from_cursor: str | None = None,
        until_ms: float | None = None,
        follow: bool = False,
    ) -> LogStream:
        """Captured output as a stream; as `Sandbox.log_stream`.

        Example: `async for entry in await handle.log_stream(): print(entry.text(), end="")`
        """
        options = {
            "sources": sources,
            "since_ms": since_ms,
            "from_cursor": from_cursor,
            "until_ms": until_ms,
            "follow": follow,
        }
        return LogStream(await run(self._native.log_stream(options)))

    async def ping(self) -> SandboxPingResult:
        """A round trip to the agent; does not count as activity.

        Example: `print((await handle.ping()).latency_ms)`
        """
        return SandboxPingResult(self._native.name, await run(self._native.ping()))

    async def touch(self) -> SandboxTouchResult:
        """Resets the idle timer.

        Example: `print((await handle.touch()).activity_seq)`
        """
        return SandboxTouchResult(self._native.name, await run(self._native.touch()))

    def _repr_html_(self) -> str:
        from . import _notebook

        rows: list[tuple[str, object]] = [("isolation", self.isolation), ("backend", self.backend_kind)]
        rows.append(("id", self.id))
        if self.last_error is not None:
            rows.append(("last error", self.last_error))
        return _notebook.card(self.name, (_notebook.STATUS.get(self.status, "dim"), self.status), rows)

    def __repr__(self) -> str:
        return repr(self._native)


def _sandbox(native: NativeSandbox) -> Sandbox:
    from ._sandbox import Sandbox

    return Sandbox(native)
