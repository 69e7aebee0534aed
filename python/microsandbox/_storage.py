"""Disk space by category."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Union

from . import _backend, _microsandbox
from ._checks import number
from ._runtime import run
from .errors import SandboxNotFoundError


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


async def of_sandbox(name: str, backend: Any) -> StorageItemUsage:
    """The one of that name."""
    text: str = await run(_microsandbox.storage_usage(backend))
    for item in json.loads(text)["sandboxes"]["items"]:
        if item["name"] == name:
            return StorageItemUsage(**item)
    raise SandboxNotFoundError(f"sandbox {name!r} not found")


def _category(given: dict[str, Any]) -> StorageCategoryUsage:
    return StorageCategoryUsage(**{**given, "items": [StorageItemUsage(**item) for item in given["items"]]})


class Storage:
    """Disk space of this product.

    Example: `print((await Storage.usage()).notes)`
    """

    @staticmethod
    async def usage(*, backend: _backend.BackendObject | None = None) -> StorageUsage:
        """What uses how much.

        A file counts once, however many links it has; a layer counts once in the sums, however many images share it.
        Trees of more than 200,000 entries are counted up to there, and a note says so.

        Example: `print((await Storage.usage()).images.allocated_bytes)`
        """
        text: str = await run(_microsandbox.storage_usage(_backend.pick(backend)))
        given = json.loads(text)
        notes = given.pop("notes")
        return StorageUsage(**{name: _category(category) for name, category in given.items()}, notes=notes)

    @staticmethod
    async def prune(*, dry_run: bool = False, older_than_seconds: int | None = None) -> MemoryCacheReport:
        """Removes cached memory files. This product keeps none: the report is empty. For images see `Image.prune`.

        Example: `print((await Storage.prune(dry_run=True)).files_removed)`
        """
        if not isinstance(dry_run, bool):
            raise TypeError(f"dry_run must be bool, not {type(dry_run).__name__}")
        if older_than_seconds is not None and number("older_than_seconds", older_than_seconds) < 0:
            raise ValueError("older_than_seconds must not be negative")
        return MemoryCacheReport(dry_run, (), 0, 0, 0, False)
