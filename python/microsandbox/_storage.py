"""Disk space by category, as it will be. `UnsupportedError` for now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Union

from ._unsupported import STORAGE, unsupported


@dataclass(frozen=True)
class StorageItemUsage:
    """One thing on disk; sizes in bytes.

    Example: `print([item.name for item in (await Storage.usage()).images.items])`
    """

    name: str
    path: str
    logical_bytes: int
    allocated_bytes: int
    in_use: bool
    reclaimable: bool
    reasons: Sequence[str]


@dataclass(frozen=True)
class StorageCategoryUsage:
    """All things of one kind; sizes in bytes.

    Example: `print((await Storage.usage()).sandboxes.in_use)`
    """

    count: int
    in_use: int
    logical_bytes: int
    allocated_bytes: int
    reclaimable_logical_bytes: Union[int, None]
    items: Sequence[StorageItemUsage]
    notes: Sequence[str]


@dataclass(frozen=True)
class StorageUsage:
    """Everything that this product keeps on disk.

    Example: `print((await Storage.usage()).volumes.count)`
    """

    images: StorageCategoryUsage
    snapshots: StorageCategoryUsage
    sandboxes: StorageCategoryUsage
    volumes: StorageCategoryUsage
    branch_memory: StorageCategoryUsage
    snapshot_memory: StorageCategoryUsage
    notes: Sequence[str]


@dataclass(frozen=True)
class MemoryCacheEntry:
    """One cached memory file.

    Example: `print([entry.path for entry in (await Storage.prune(dry_run=True)).entries])`
    """

    path: str
    kind: str
    logical_bytes: int
    allocated_bytes: int
    state: str
    error: Union[str, None]


@dataclass(frozen=True)
class MemoryCacheReport:
    """What `Storage.prune` removed.

    Example: `print((await Storage.prune(dry_run=True)).files_removed)`
    """

    dry_run: bool
    entries: Sequence[MemoryCacheEntry]
    files_removed: int
    logical_bytes_removed: int
    physical_bytes_reclaimed: int
    truncated: bool


class Storage:
    """Disk space of this product.

    Example: `print((await Storage.usage()).notes)`
    """

    @staticmethod
    async def usage() -> StorageUsage:
        """What uses how much. `UnsupportedError` for now.

        Example: `print((await Storage.usage()).images.allocated_bytes)`
        """
        raise unsupported("Storage.usage", STORAGE)

    @staticmethod
    async def prune(*, dry_run: bool = False, older_than_seconds: int | None = None) -> MemoryCacheReport:
        """Removes cached memory files. `UnsupportedError` for now.

        Example: `print((await Storage.prune(dry_run=True)).files_removed)`
        """
        raise unsupported("Storage.prune", STORAGE)
