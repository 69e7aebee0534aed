"""Merging the layers of a sandbox's disks."""

from __future__ import annotations

from typing import TypedDict


class CompactKeywords(TypedDict, total=False):
    """Keywords of `compact`."""

    layers: int | None
    dry_run: bool
    disk: str | None
    root_disk_only: bool


class DiskCompactionDiskResult(TypedDict):
    """Merged layers of one disk.

    Example: `print([disk["guest_path"] for disk in (await sb.compact())["disks"]])`
    """

    guest_path: str
    input_layers: int
    selected_layers: int
    output_layers: int
    materialized_bytes: int
    total_us: int


class DiskCompactionResult(TypedDict):
    """Merged layers of a sandbox.

    Example: `print((await sb.compact(dry_run=True))["input_layers"])`
    """

    dry_run: bool
    input_layers: int
    selected_layers: int
    output_layers: int
    materialized_bytes: int
    total_us: int
    pause_us: int
    disks: list[DiskCompactionDiskResult]
