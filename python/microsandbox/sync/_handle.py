# Generated from _handle.py by python/tools/generate_sync.py: change that, not this.
"""The record of a sandbox, and the small values around it."""
from __future__ import annotations
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Union
from .._handle import SandboxPingResult as SandboxPingResult, SandboxTouchResult as SandboxTouchResult
from . import _isolation, _jobs, _later
from .. import _checks, _modify
from .._enums import GuestFlush, Isolation, LogReadSource, SandboxStatus
from ._logs import LogStream
from .._runtime import wait as run
from .._unsupported import unsupported
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from .._config import IsolationReport
    from .._enums import ModificationPolicy
    from ._jobs import Job
    from .._microsandbox import LogEntry, NativeHandle, NativeSandbox, SandboxMetrics, SandboxStopResult
    from .._modify import SandboxModificationPlan
    from .._network import PortBinding, PortEndpoint
    from ._sandbox import Sandbox
    from .._secrets import SecretModifySpec
    from ..jobs import JobPage

@dataclass(frozen=True)
class SandboxPage:
    """One page of records, newest first; `next_cursor` is None on the last.

    Example: `page = Sandbox.list(); print(len(page.sandboxes), page.next_cursor)`
    """
    sandboxes: list[SandboxHandle]
    next_cursor: Union[str, None] = None

class SandboxHandle(_later.LaterHandle):
    """A record as it was read, plus lifecycle by name. Needs no running sandbox.

    Example: `for handle in Sandbox.list().sandboxes: print(handle.name, handle.status)`
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

    def isolation_report(self) -> IsolationReport:
        """Driver, accelerator, and the state of each mechanism with its reason.

        Example: `print(handle.isolation_report().driver)`
        """
        return run(self._native.isolation_report())

    @property
    def config_json(self) -> str:
        """The stored configuration as JSON."""
        return self._native.config_json

    def config(self) -> dict[str, Any]:
        """The stored configuration. `UnsupportedError` on the cloud, whose answer is not the creator's configuration:
        its own view is in `config_json`.

        Example: `print(handle.config()["resources"]["memory_mib"])`
        """
        if self._native.backend_kind == 'cloud':
            raise unsupported('SandboxHandle::config on cloud', 'when SandboxConfig is the cloud wire shape')
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

    def refresh(self) -> SandboxHandle:
        """The record, read again; this object stays as it is. Raises `SandboxNotFoundError`.

        Example: `handle = handle.refresh()`
        """
        return SandboxHandle(run(self._native.refresh()))

    def connect(self, timeout: float | None=None) -> Sandbox:
        """A connection that does not own the sandbox, within `timeout` seconds (10).

        Raises `SandboxNotRunningError` when the record says so; `refresh` it first if it is old.

        Example: `sb = handle.connect()`
        """
        return _sandbox(run(self._native.connect(timeout)))

    def start(self, *, detached: bool=False) -> Sandbox:
        """Boots it with its stored configuration.

        Example: `sb = handle.start(detached=True)`
        """
        native = run(self._native.start(detached))
        _isolation.notice(native)
        return _sandbox(native)

    def connect_or_start(self, *, detached: bool=False) -> Sandbox:
        """Connects to it if it runs, else starts it.

        Example: `sb = handle.connect_or_start()`
        """
        native = run(self._native.connect_or_start(detached))
        _isolation.notice(native)
        return _sandbox(native)

    def stop(self, timeout: float | None=None) -> None:
        """Orderly end, forced after `timeout` seconds (10; 0 kills at once). Fine on a stopped sandbox.

        Example: `handle.stop(timeout=30)`
        """
        run(self._native.stop(timeout))

    def stop_with_timeout(self, timeout: float) -> None:
        """As `stop`, but never forces: `StopTimeoutError` after `timeout` seconds.

        Example: `handle.stop_with_timeout(30)`
        """
        run(self._native.stop_with_timeout(timeout))

    def kill(self, timeout: float | None=None) -> None:
        """Ends it by force and waits up to `timeout` seconds (5).

        Example: `handle.kill()`
        """
        run(self._native.kill(timeout))

    def request_stop(self) -> None:
        """Asks for an orderly end and returns.

        Example: `handle.request_stop(); handle.wait_until_stopped()`
        """
        run(self._native.request_stop())

    def request_kill(self) -> None:
        """Asks for a forced end and returns.

        Example: `handle.request_kill(); handle.wait_until_stopped()`
        """
        run(self._native.request_kill())

    def get_job(self, id: str) -> Job:
        """As `Sandbox.get_job`.

        Example: `job = handle.get_job(id)`
        """
        return _jobs.find(self._native, id)

    def list_jobs(self, *, all: bool=False, limit: int=50, cursor: str | None=None) -> JobPage:
        """As `Sandbox.list_jobs`.

        Example: `print([info.id for info in handle.list_jobs(all=True).items])`
        """
        return _jobs.page(self._native, all, limit, cursor)

    def modify(self, *, cpus: int | None=None, max_cpus: int | None=None, memory: int | None=None, max_memory: int | None=None, root_disk_size: int | None=None, env: Mapping[str, str] | None=None, env_rm: Sequence[str] | None=None, labels: Mapping[str, str] | None=None, labels_rm: Sequence[str] | None=None, workdir: str | None=None, secrets: Mapping[str, SecretModifySpec] | None=None, secrets_rm: Sequence[str] | None=None, policy: ModificationPolicy | None=None, dry_run: bool=False, ports: Mapping[int, int] | Sequence[PortBinding] | None=None, ports_rm: Sequence[PortEndpoint] | None=None) -> SandboxModificationPlan:
        """As `Sandbox.modify`; needs no running sandbox.

        Example: `plan = handle.modify(memory=1024, dry_run=True)`
        """
        _modify.refuse(root_disk_size, secrets, secrets_rm, ports, ports_rm)
        asked = {'cpus': cpus, 'max_cpus': max_cpus, 'memory': memory, 'max_memory': max_memory, 'env': env, 'env_rm': env_rm, 'labels': labels, 'labels_rm': labels_rm, 'workdir': workdir, 'policy': policy, 'dry_run': dry_run}
        return _modify.plan(run(self._native.modify(asked)))

    def pause(self, *, guest_flush: GuestFlush | None=None) -> None:
        """As `Sandbox.pause`. `guest_flush=REQUIRED` needs a connection: use `Sandbox.pause` for that.

        Example: `handle.pause()`
        """
        wanted = _checks.checked(guest_flush, GuestFlush, 'guest_flush')
        if wanted is GuestFlush.REQUIRED:
            raise unsupported('SandboxHandle.pause(guest_flush=REQUIRED)', 'on a connection: Sandbox.pause')
        run(self._native.pause())

    def resume(self) -> None:
        """As `Sandbox.resume`.

        Example: `handle.resume()`
        """
        run(self._native.resume())

    def request_drain(self) -> None:
        """Lets running programs end, refuses new ones, and returns.

        Example: `handle.request_drain(); handle.wait_until_stopped()`
        """
        run(self._native.request_drain())

    def restart(self, *, force: bool=False, timeout: float | None=None, detached: bool=False) -> Sandbox:
        """Stops (or kills) it and starts it again.

        Example: `sb = handle.restart()`
        """
        run(self._native.kill(timeout) if force else self._native.stop(timeout))
        return self.start(detached=detached)

    def destroy(self, *, force: bool=False, timeout: float | None=None) -> None:
        """Stops (or kills) it and removes it.

        Example: `handle.destroy(force=True)`
        """
        run(self._native.kill(timeout) if force else self._native.stop(timeout))
        run(self._native.remove())

    def wait_until_stopped(self) -> SandboxStopResult:
        """Waits for its end without asking for it.

        Example: `print(handle.wait_until_stopped().exit_code)`
        """
        return run(self._native.wait_until_stopped())

    def wait_for_status(self, status: SandboxStatus) -> SandboxHandle:
        """Waits until `status` is seen.

        Example: `handle = handle.wait_for_status(SandboxStatus.RUNNING)`
        """
        return SandboxHandle(run(self._native.wait_for_status(status)))

    def remove(self) -> None:
        """Deletes it: record, disk and logs. Refuses to act on a later sandbox of the same name.

        Raises `SandboxStillRunningError`, `SandboxNotFoundError`, `SandboxReplacedError`.

        Example: `handle.remove()`
        """
        run(self._native.remove())

    def metrics(self) -> SandboxMetrics:
        """The latest sample. Raises `MetricsDisabledError`, `MetricsUnavailableError`.

        Example: `print(handle.metrics().memory_bytes)`
        """
        return run(self._native.metrics())

    def logs(self, tail: int | None=None, since_ms: float | None=None, until_ms: float | None=None, sources: list[LogReadSource] | None=None) -> list[LogEntry]:
        """Captured output, running or not; as `Sandbox.logs`.

        Example: `print("".join([entry.text() for entry in handle.logs(tail=20)]))`
        """
        options = {'tail': tail, 'since_ms': since_ms, 'until_ms': until_ms, 'sources': sources}
        return run(self._native.logs(options))

    def log_stream(self, sources: list[LogReadSource] | None=None, since_ms: float | None=None, from_cursor: str | None=None, until_ms: float | None=None, follow: bool=False) -> LogStream:
        """Captured output as a stream; as `Sandbox.log_stream`.

        Example: `for entry in handle.log_stream(): print(entry.text(), end="")`
        """
        options = {'sources': sources, 'since_ms': since_ms, 'from_cursor': from_cursor, 'until_ms': until_ms, 'follow': follow}
        return LogStream(run(self._native.log_stream(options)))

    def ping(self) -> SandboxPingResult:
        """A round trip to the agent; does not count as activity.

        Example: `print(handle.ping().latency_ms)`
        """
        return SandboxPingResult(self._native.name, run(self._native.ping()))

    def touch(self) -> SandboxTouchResult:
        """Resets the idle timer.

        Example: `print(handle.touch().activity_seq)`
        """
        return SandboxTouchResult(self._native.name, run(self._native.touch()))

    def _repr_html_(self) -> str:
        from .. import _picture
        rows: list[tuple[str, object]] = [('isolation', self.isolation), ('backend', self.backend_kind)]
        rows.append(('id', self.id))
        if self.last_error is not None:
            rows.append(('last error', self.last_error))
        return _picture.card(self.name, (_picture.STATUS.get(self.status, 'dim'), self.status), rows)

    def __repr__(self) -> str:
        return repr(self._native)

def _sandbox(native: NativeSandbox) -> Sandbox:
    from ._sandbox import Sandbox
    return Sandbox(native)
