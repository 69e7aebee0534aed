# Generated from _later.py by python/tools/generate_sync.py: change that, not this.
"""Operations of a sandbox and its record that this build refuses by name, with the signatures that they will have."""
from __future__ import annotations
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn
from .. import _checks, _deprecation
from .. import _unsupported as later
from .._enums import Isolation, LogLevel, SecurityProfile
from ._snapshot import Snapshot, SnapshotHandle
from ._ssh import SandboxSshOps
from .._unsupported import unsupported
if TYPE_CHECKING:
    from .._backend import BackendObject
    from .._config import MountConfig, Path
    from .._enums import GuestFlush
    from .._modify import DiskCompactionResult, ExternalMountWarning, ForkOutcome
    from .._network import NetworkPolicy, PortBinding, VsockRoute
    from ._pull import PullSession
    from ._sandbox import Sandbox

def _refused(operation: str, hint: str) -> NoReturn:
    raise unsupported(operation, hint)

def _checked_restore(given: dict[str, Any]) -> None:
    """Types and ranges of what `restore` was given."""
    if not isinstance(given['snapshot'], (str, os.PathLike, Snapshot, SnapshotHandle)):
        raise TypeError(f"snapshot must be Snapshot, SnapshotHandle or a path, not {type(given['snapshot']).__name__}")
    if not isinstance(given['name'], str):
        raise TypeError(f"name must be str, not {type(given['name']).__name__}")
    if given['forked']:
        _deprecation.warn('restore(forked=)', 'cow_memory=', depth=2)
    for name, high in (('cpus', 255), ('memory', 2 ** 32 - 1)):
        if given[name] is not None:
            _checks.bounded(name, given[name], 1, high)
    counts = ('max_connections', 'max_tcp_connections', 'max_udp_connections', 'max_inbound_tcp_connections')
    for name in (*counts, 'tcp_accept_queue_size'):
        if given[name] is not None:
            _checks.bounded(name, given[name], 0, 2 ** 32 - 1)
    for name in ('max_duration', 'idle_timeout'):
        if given[name] is not None and (not given[name] >= 0):
            raise ValueError(f'{name} must be non-negative: got {given[name]!r}')
    for name, kind in (('security', SecurityProfile), ('log_level', LogLevel), ('isolation', Isolation)):
        _checks.checked(given[name], kind, name)
    if given['external_mount_policy'] not in ('strict', 'relaxed'):
        raise ValueError(f"external_mount_policy must be 'strict' or 'relaxed': got {given['external_mount_policy']!r}")

class LaterCommon:
    """What `Sandbox` and `SandboxHandle` share."""

    def fork(self, name: str, *, record_integrity: bool=False, guest_flush: GuestFlush | None=None, volumes: Mapping[str, MountConfig] | None=None) -> Any:
        """A running copy. `UnsupportedError` for now.

        Example: `copy = sb.fork("copy")`
        """
        raise unsupported('Sandbox.fork', later.FORK)

    def fork_many(self, names: Sequence[str], *, record_integrity: bool=False, guest_flush: GuestFlush | None=None, volumes: Mapping[str, MountConfig] | None=None) -> Sequence[ForkOutcome]:
        """Several running copies. `UnsupportedError` for now.

        Example: `outcomes = sb.fork_many(["a", "b"])`
        """
        raise unsupported('Sandbox.fork_many', later.FORK)

    def branch(self, name: str, *, record_integrity: bool=False, guest_flush: GuestFlush | None=None, volumes: Mapping[str, MountConfig] | None=None) -> Any:
        """The older name of `fork`. `UnsupportedError` for now.

        Example: `copy = sb.branch("copy")`
        """
        _deprecation.warn('branch()', 'fork()')
        return self.fork(name, record_integrity=record_integrity, guest_flush=guest_flush, volumes=volumes)

    def branch_many(self, names: Sequence[str], *, record_integrity: bool=False, guest_flush: GuestFlush | None=None, volumes: Mapping[str, MountConfig] | None=None) -> Sequence[ForkOutcome]:
        """The older name of `fork_many`. `UnsupportedError` for now.

        Example: `outcomes = sb.branch_many(["a", "b"])`
        """
        _deprecation.warn('branch_many()', 'fork_many()')
        return self.fork_many(names, record_integrity=record_integrity, guest_flush=guest_flush, volumes=volumes)

    def compact(self, *, layers: int | None=None, dry_run: bool=False, disk: str | None=None, root_disk_only: bool=False) -> DiskCompactionResult:
        """Merges layers of its disk. `UnsupportedError` for now.

        Example: `print(sb.compact(dry_run=True)["input_layers"])`
        """
        raise unsupported('Sandbox.compact', later.COMPACT)

class LaterSandbox(LaterCommon):
    """What only a live sandbox has."""

    @staticmethod
    def restore(snapshot: Snapshot | SnapshotHandle | Path, *, name: str, cpus: int | None=None, memory: int | None=None, network_policy: NetworkPolicy | None=None, max_connections: int | None=None, max_tcp_connections: int | None=None, max_udp_connections: int | None=None, disable_network: bool=False, security: SecurityProfile | None=None, max_duration: float | None=None, idle_timeout: float | None=None, cow_memory: bool=False, forked: bool=False, disk_only: bool=False, snapshot_base: str | None=None, user: str | None=None, log_level: LogLevel | None=None, volumes: Mapping[str, MountConfig] | None=None, captured_volumes: Sequence[str] | None=None, ports: Mapping[int, int] | Sequence[PortBinding] | None=None, tcp_accept_queue_size: int | None=None, max_inbound_tcp_connections: int | None=None, vsock: Mapping[str, int] | Sequence[VsockRoute] | None=None, external_mount_policy: str='strict', dangerously_inherit_resources: bool=False, allow_missing_resources: bool=False, isolation: Isolation | str | None=None, backend: BackendObject | None=None) -> Sandbox:
        """Boots from a snapshot. Arguments are checked in the call; `UnsupportedError` for now.

        `cpus`, `memory` (MiB) and the limits are those of `create`; `cow_memory` shares the snapshot's memory until it
        is written to, `disk_only` leaves memory out. `external_mount_policy` is `"strict"`, which refuses host mounts
        that changed since, or `"relaxed"`.

        Example: `sb = Sandbox.restore("base", name="copy", memory=1024)`
        """
        _checked_restore(locals())
        return _refused('Sandbox.restore', later.SNAPSHOTS)

    @staticmethod
    def restore_with_progress(snapshot: Snapshot | SnapshotHandle | Path, *, name: str, cpus: int | None=None, memory: int | None=None, network_policy: NetworkPolicy | None=None, max_connections: int | None=None, max_tcp_connections: int | None=None, max_udp_connections: int | None=None, disable_network: bool=False, security: SecurityProfile | None=None, max_duration: float | None=None, idle_timeout: float | None=None, cow_memory: bool=False, forked: bool=False, disk_only: bool=False, snapshot_base: str | None=None, user: str | None=None, log_level: LogLevel | None=None, volumes: Mapping[str, MountConfig] | None=None, captured_volumes: Sequence[str] | None=None, ports: Mapping[int, int] | Sequence[PortBinding] | None=None, tcp_accept_queue_size: int | None=None, max_inbound_tcp_connections: int | None=None, vsock: Mapping[str, int] | Sequence[VsockRoute] | None=None, external_mount_policy: str='strict', dangerously_inherit_resources: bool=False, allow_missing_resources: bool=False, isolation: Isolation | str | None=None, backend: BackendObject | None=None) -> PullSession:
        """As `restore`, with progress. `UnsupportedError` for now.

        Example: `session = Sandbox.restore_with_progress("base", name="copy")`
        """
        _checked_restore(locals())
        raise unsupported('Sandbox.restore_with_progress', later.SNAPSHOTS)

    def ssh(self) -> SandboxSshOps:
        """SSH to it. Its operations raise `UnsupportedError` for now.

        Example: `client = sb.ssh().open_client()`
        """
        return SandboxSshOps()

    def restore_warnings(self) -> Sequence[ExternalMountWarning]:
        """Host mounts that changed since the snapshot. `UnsupportedError` for now.

        Example: `print([warning.guest_path for warning in sb.restore_warnings()])`
        """
        raise unsupported('Sandbox.restore_warnings', later.SNAPSHOTS)

class LaterHandle(LaterCommon):
    """What only a record has."""

    def snapshot(self, name: str) -> Any:
        """Saves its disk. `UnsupportedError` for now.

        Example: `snapshot = handle.snapshot("base")`
        """
        if getattr(self, 'backend_kind', None) == 'cloud':
            raise unsupported('SandboxHandle::snapshot on cloud', 'when cloud snapshots land')
        raise unsupported('SandboxHandle.snapshot', later.SNAPSHOTS)

    def storage_usage(self) -> Any:
        """Its disk space. `UnsupportedError` for now.

        Example: `print(handle.storage_usage().allocated_bytes)`
        """
        raise unsupported('SandboxHandle.storage_usage', later.STORAGE)
