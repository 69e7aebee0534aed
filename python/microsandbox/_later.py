"""Operations of a sandbox and its record that this build refuses by name, with the signatures that they will have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import _unsupported as later
from ._unsupported import unsupported

if TYPE_CHECKING:
    from ._config import MountConfig
    from ._enums import GuestFlush
    from ._modify import DiskCompactionResult, ForkOutcome


class LaterCommon:
    """What `Sandbox` and `SandboxHandle` share."""

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
