"""Results of changing a sandbox, as they will be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypedDict, Union

from ._enums import (
    ChangeKind,
    ModificationDisposition,
    ModificationPolicy,
    PlannedChangeKind,
    ResourceConvergenceState,
    ResourceKind,
    SandboxStatus,
    SecretChangeKind,
)


class _ConfigRequired(TypedDict):
    kind: Literal[PlannedChangeKind.CONFIG]
    field: str
    change: ChangeKind
    disposition: ModificationDisposition


class ConfigPlannedChange(_ConfigRequired, total=False):
    """A setting that changes."""

    before: str
    after: str
    reason: str


class _SecretRequired(TypedDict):
    kind: Literal[PlannedChangeKind.SECRET]
    field: str
    name: str
    change: SecretChangeKind
    disposition: ModificationDisposition


class SecretPlannedChange(_SecretRequired, total=False):
    """A secret that changes; values never appear."""

    before_ref: str
    after_ref: str
    allow_hosts: list[str]
    reason: str


PlannedChange = Union[ConfigPlannedChange, SecretPlannedChange]


class ModificationConflict(TypedDict):
    """Why a change cannot be made."""

    field: str
    message: str


class ModificationWarning(TypedDict):
    """What a change brings with it."""

    field: str
    message: str


class ResourceResizeStatus(TypedDict):
    """How far a live resize is."""

    resource: ResourceKind
    requested: str
    actual: str
    enforced: str
    state: ResourceConvergenceState


class _PlanRequired(TypedDict):
    sandbox: str
    status: SandboxStatus
    applied: bool
    policy: ModificationPolicy
    changes: list[PlannedChange]
    conflicts: list[ModificationConflict]
    warnings: list[ModificationWarning]


class SandboxModificationPlan(_PlanRequired, total=False):
    """What `modify` did or would do."""

    resize_status: list[ResourceResizeStatus]


class DiskCompactionDiskResult(TypedDict):
    """Merged layers of one disk."""

    guest_path: str
    input_layers: int
    selected_layers: int
    output_layers: int
    materialized_bytes: int
    total_us: int


class DiskCompactionResult(TypedDict):
    """Merged layers of a sandbox."""

    dry_run: bool
    input_layers: int
    selected_layers: int
    output_layers: int
    materialized_bytes: int
    total_us: int
    pause_us: int
    disks: list[DiskCompactionDiskResult]


@dataclass(frozen=True)
class ForkOutcome:
    """One copy of `fork_many`: a sandbox or an error."""

    name: str
    sandbox: Any = None
    error: Union[Exception, None] = None


BranchOutcome = ForkOutcome


@dataclass(frozen=True)
class ExternalMountWarning:
    """A host mount that changed since the snapshot."""

    guest_path: str
    reason: str
    stale_inodes: int
