"""Disk space by category, as it will be. `UnsupportedError` for now."""

# mypy: disable-error-code="empty-body"

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Union

from ._unsupported import STORAGE, refused


@dataclass(frozen=True)
class StorageItemUsage:
    """One thing on disk; sizes in bytes, None where it cannot be measured.

    Example: `print([item.name for item in (await Storage.usage()).images.items])`
    """

    name: str
    path: str
    logical_bytes: Union[int, None]
    allocated_bytes: Union[int, None]
    in_use: Union[bool, None]
    reclaimable: Union[bool, None]
    reasons: Sequence[str]


@dataclass(frozen=True)
class StorageCategoryUsage:
    """All things of one kind; sizes in bytes, None where they cannot be measured.

    Example: `print((await Storage.usage()).sandboxes.in_use)`
    """

    count: Union[int, None]
    in_use: Union[int, None]
    logical_bytes: Union[int, None]
    allocated_bytes: Union[int, None]
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

    `kind` is `branch_memory` or `snapshot_memory`, `state` is `reclaimable`, `in_use`, `pending_handoff`, `too_young`,
    `missing_handoff_lock`, `changed`, `removed` or `error`.

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


@refused(STORAGE)
class Storage:
    """Disk space of this product.

    Example: `print((await Storage.usage()).notes)`
    """

    @staticmethod
    async def usage() -> StorageUsage:
        """What uses how much. `UnsupportedError` for now.

        Example: `print((await Storage.usage()).images.allocated_bytes)`
        """

    @staticmethod
    async def prune(*, dry_run: bool = False, older_than_seconds: int | None = None) -> MemoryCacheReport:
        """Removes cached memory files. `UnsupportedError` for now.

        Example: `print((await Storage.prune(dry_run=True)).files_removed)`
        """
