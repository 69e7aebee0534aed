# Generated from _storage.py by python/tools/generate_sync.py: change that, not this.
"""Disk space by category, as it will be. `UnsupportedError` for now."""
from __future__ import annotations
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Union
from .._storage import MemoryCacheEntry as MemoryCacheEntry, MemoryCacheReport as MemoryCacheReport, StorageCategoryUsage as StorageCategoryUsage, StorageItemUsage as StorageItemUsage, StorageUsage as StorageUsage
from .._unsupported import STORAGE, unsupported

class Storage:
    """Disk space of this product.

    Example: `print(Storage.usage().notes)`
    """

    @staticmethod
    def usage() -> StorageUsage:
        """What uses how much. `UnsupportedError` for now.

        Example: `print(Storage.usage().images.allocated_bytes)`
        """
        raise unsupported('Storage.usage', STORAGE)

    @staticmethod
    def prune(*, dry_run: bool=False, older_than_seconds: int | None=None) -> MemoryCacheReport:
        """Removes cached memory files. `UnsupportedError` for now.

        Example: `print(Storage.prune(dry_run=True).files_removed)`
        """
        raise unsupported('Storage.prune', STORAGE)
