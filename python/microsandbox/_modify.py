"""Results of changing a sandbox."""

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
from ._unsupported import unsupported


class _ConfigRequired(TypedDict):
    kind: Literal[PlannedChangeKind.CONFIG]
    field: str
    change: ChangeKind
    disposition: ModificationDisposition


class ConfigPlannedChange(_ConfigRequired, total=False):
    """A setting that changes.

    Example: `print([(change["field"], change["disposition"]) for change in plan["changes"]])`
    """

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
    """A secret that changes; values never appear.

    Example: `print([change["field"] for change in plan["changes"]])`
    """

    before_ref: str
    after_ref: str
    allow_hosts: list[str]
    reason: str


PlannedChange = Union[ConfigPlannedChange, SecretPlannedChange]


class ModificationConflict(TypedDict):
    """Why a change cannot be made.

    Example: `print([conflict["message"] for conflict in plan["conflicts"]])`
    """

    field: str
    message: str


class ModificationWarning(TypedDict):
    """What a change brings with it.

    Example: `print([warning["message"] for warning in plan["warnings"]])`
    """

    field: str
    message: str


class ResourceResizeStatus(TypedDict):
    """How far a live resize is.

    Example: `print([status["state"] for status in plan.get("resize_status", [])])`
    """

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
    """What `modify` did or would do.

    Example: `plan = await sb.modify(memory=1024, dry_run=True); print(plan["changes"])`
    """

    resize_status: list[ResourceResizeStatus]


def refuse(root_disk_size: Any, secrets: Any, secrets_rm: Any, ports: Any, ports_rm: Any) -> None:
    """What this build cannot change is refused by name, before anything else happens."""
    if root_disk_size is not None:
        raise unsupported("modify(root_disk_size=)", "when root disk options land")
    if secrets or secrets_rm:
        raise unsupported("modify(secrets=, secrets_rm=)", "when secrets land")
    if ports or ports_rm:
        raise unsupported("modify(ports=, ports_rm=)", "when sandbox networking lands")


def plan(raw: dict[str, Any]) -> SandboxModificationPlan:
    """The native answer with members of enums."""
    result: SandboxModificationPlan = {
        "sandbox": raw["sandbox"],
        "status": SandboxStatus(raw["status"]),
        "applied": raw["applied"],
        "policy": ModificationPolicy(raw["policy"]),
        "changes": [_change(*change) for change in raw["changes"]],
        "conflicts": [{"field": field, "message": message} for field, message in raw["conflicts"]],
        "warnings": [{"field": field, "message": message} for field, message in raw["warnings"]],
    }
    if raw["resize_status"]:
        result["resize_status"] = [
            {
                "resource": ResourceKind(resource),
                "requested": requested,
                "actual": actual,
                "enforced": enforced,
                "state": ResourceConvergenceState.APPLIED,
            }
            for resource, requested, actual, enforced in raw["resize_status"]
        ]
    return result


def _change(
    field: str,
    name: Union[str, None],
    change: str,
    disposition: str,
    before: Union[str, None],
    after: Union[str, None],
    reason: Union[str, None],
) -> ConfigPlannedChange:
    result: ConfigPlannedChange = {
        "kind": PlannedChangeKind.CONFIG,
        "field": field,
        "change": ChangeKind(change),
        "disposition": ModificationDisposition(disposition),
    }
    named = "" if name is None else f"{name}="
    if before is not None:
        result["before"] = named + before
    if after is not None:
        result["after"] = named + after
    if reason is not None:
        result["reason"] = reason
    return result


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


@dataclass(frozen=True)
class ForkOutcome:
    """One copy of `fork_many`: a sandbox or an error.

    Example: `print([outcome.error for outcome in await sb.fork_many(["a", "b"])])`
    """

    name: str
    sandbox: Any = None
    error: Union[Exception, None] = None


BranchOutcome = ForkOutcome


@dataclass(frozen=True)
class ExternalMountWarning:
    """A host mount that changed since the snapshot.

    Example: `print([warning.guest_path for warning in await sb.restore_warnings()])`
    """

    guest_path: str
    reason: str
    stale_inodes: int
