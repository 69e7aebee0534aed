"""Disk space by category, as it will be. `UnsupportedError` for now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Union

from ._unsupported import STORAGE, unsupported


@dataclass(frozen=True)
class StorageItemUsage:
    """One thing on disk; sizes in bytes."""

    name: str
    path: str
    logical_bytes: int
    allocated_bytes: int
    in_use: bool
    reclaimable: bool
    reasons: Sequence[str]


@dataclass(frozen=True)
class StorageCategoryUsage:
    """All things of one kind; sizes in bytes."""

    count: int
    in_use: int
    logical_bytes: int
    allocated_bytes: int
    reclaimable_logical_bytes: Union[int, None]
    items: Sequence[StorageItemUsage]
    notes: Sequence[str]


@dataclass(frozen=True)
class StorageUsage:
    """Everything that this product keeps on disk."""

    images: StorageCategoryUsage
    snapshots: StorageCategoryUsage
    sandboxes: StorageCategoryUsage
    volumes: StorageCategoryUsage
    branch_memory: StorageCategoryUsage
    snapshot_memory: StorageCategoryUsage
    notes: Sequence[str]


@dataclass(frozen=True)
class MemoryCacheEntry:
    """One cached memory file."""

    path: str
    kind: str
    logical_bytes: int
    allocated_bytes: int
    state: str
    error: Union[str, None]


@dataclass(frozen=True)
class MemoryCacheReport:
    """What `Storage.prune` removed."""

    dry_run: bool
    entries: Sequence[MemoryCacheEntry]
    files_removed: int
    logical_bytes_removed: int
    physical_bytes_reclaimed: int
    truncated: bool


class Storage:
    """Disk space of this product."""

    @staticmethod
    async def usage() -> StorageUsage:
        """What uses how much. `UnsupportedError` for now."""
        raise unsupported("Storage.usage", STORAGE)

    @staticmethod
    async def prune(*, dry_run: bool = False, older_than_seconds: int | None = None) -> MemoryCacheReport:
        """Removes cached memory files. `UnsupportedError` for now."""
        raise unsupported("Storage.prune", STORAGE)
