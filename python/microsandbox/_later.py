"""Operations of a sandbox and its record that this build refuses by name, with the signatures that they will have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import _unsupported as later
from ._unsupported import unsupported

if TYPE_CHECKING:
    from ._config import MountConfig
    from ._enums import GuestFlush, ModificationPolicy
    from ._modify import DiskCompactionResult, ForkOutcome, SandboxModificationPlan
    from ._network import PortBinding, PortEndpoint
    from ._secrets import SecretModifySpec


class LaterCommon:
    """What `Sandbox` and `SandboxHandle` share."""

    async def modify(
        self,
        *,
        cpus: int | None = None,
        max_cpus: int | None = None,
        memory: int | None = None,
        max_memory: int | None = None,
        root_disk_size: int | None = None,
        env: Mapping[str, str] | None = None,
        env_rm: Sequence[str] | None = None,
        labels: Mapping[str, str] | None = None,
        labels_rm: Sequence[str] | None = None,
        workdir: str | None = None,
        secrets: Mapping[str, SecretModifySpec] | None = None,
        secrets_rm: Sequence[str] | None = None,
        policy: ModificationPolicy | None = None,
        dry_run: bool = False,
        ports: Mapping[int, int] | Sequence[PortBinding] | None = None,
        ports_rm: Sequence[PortEndpoint] | None = None,
    ) -> SandboxModificationPlan:
        """Changes a sandbox, now or at its next start. `UnsupportedError` for now."""
        raise unsupported("Sandbox.modify", later.MODIFY)

    async def fork(
        self,
        name: str,
        *,
        record_integrity: bool = False,
        guest_flush: GuestFlush | None = None,
        volumes: Mapping[str, MountConfig] | None = None,
    ) -> Any:
        """A running copy. `UnsupportedError` for now."""
        raise unsupported("Sandbox.fork", later.FORK)

    async def fork_many(
        self,
        names: Sequence[str],
        *,
        record_integrity: bool = False,
        guest_flush: GuestFlush | None = None,
        volumes: Mapping[str, MountConfig] | None = None,
    ) -> Sequence[ForkOutcome]:
        """Several running copies. `UnsupportedError` for now."""
        raise unsupported("Sandbox.fork_many", later.FORK)

    async def branch(
        self,
        name: str,
        *,
        record_integrity: bool = False,
        guest_flush: GuestFlush | None = None,
        volumes: Mapping[str, MountConfig] | None = None,
    ) -> Any:
        """The older name of `fork`. `UnsupportedError` for now."""
        raise unsupported("Sandbox.branch", later.FORK)

    async def branch_many(
        self,
        names: Sequence[str],
        *,
        record_integrity: bool = False,
        guest_flush: GuestFlush | None = None,
        volumes: Mapping[str, MountConfig] | None = None,
    ) -> Sequence[ForkOutcome]:
        """The older name of `fork_many`. `UnsupportedError` for now."""
        raise unsupported("Sandbox.branch_many", later.FORK)

    async def compact(
        self,
        *,
        layers: int | None = None,
        dry_run: bool = False,
        disk: str | None = None,
        root_disk_only: bool = False,
    ) -> DiskCompactionResult:
        """Merges layers of its disk. `UnsupportedError` for now."""
        raise unsupported("Sandbox.compact", later.COMPACT)

    async def get_job(self, id: str) -> Any:
        """A detached process. `UnsupportedError` for now."""
        raise unsupported("Sandbox.get_job", later.JOBS)

    async def list_jobs(self, *, all: bool = False, limit: int = 50, cursor: str | None = None) -> Any:
        """Detached processes. `UnsupportedError` for now."""
        raise unsupported("Sandbox.list_jobs", later.JOBS)


class LaterSandbox(LaterCommon):
    """What only a live sandbox has."""

    @staticmethod
    async def restore(snapshot: Any, *, name: str, **options: Any) -> Any:
        """Boots from a snapshot. `UnsupportedError` for now."""
        raise unsupported("Sandbox.restore", later.SNAPSHOTS)

    @staticmethod
    def restore_with_progress(snapshot: Any, *, name: str, **options: Any) -> Any:
        """As `restore`, with progress. `UnsupportedError` for now."""
        raise unsupported("Sandbox.restore_with_progress", later.SNAPSHOTS)

    async def exec_detached(self, cmd: str, args: Sequence[str] | None = None, **options: Any) -> Any:
        """Runs a program that outlives this client. `UnsupportedError` for now."""
        raise unsupported("Sandbox.exec_detached", later.JOBS)

    def ssh(self) -> Any:
        """SSH to it. `UnsupportedError` for now."""
        raise unsupported("Sandbox.ssh", later.SSH)

    async def restore_warnings(self) -> Sequence[Any]:
        """Host mounts that changed since the snapshot. `UnsupportedError` for now."""
        raise unsupported("Sandbox.restore_warnings", later.SNAPSHOTS)


class LaterHandle(LaterCommon):
    """What only a record has."""

    async def snapshot(self, name: str) -> Any:
        """Saves its disk. `UnsupportedError` for now."""
        if getattr(self, "backend_kind", None) == "cloud":
            raise unsupported("SandboxHandle::snapshot on cloud", "when cloud snapshots land")
        raise unsupported("SandboxHandle.snapshot", later.SNAPSHOTS)

    async def storage_usage(self) -> Any:
        """Its disk space. `UnsupportedError` for now."""
        raise unsupported("SandboxHandle.storage_usage", later.STORAGE)
