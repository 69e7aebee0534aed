"""Changing a sandbox: the keywords and the plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Union

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
from ._signature import refuse_unknown
from ._unsupported import unsupported

if TYPE_CHECKING:
    from ._ports import PortBinding, PortEndpoint
    from ._secrets import SecretModifySpec


class ModifyKeywords(TypedDict, total=False):
    """Keywords of `modify`; None is as good as absent."""

    cpus: int | None
    max_cpus: int | None
    memory: int | None
    max_memory: int | None
    root_disk_size: int | None
    env: Mapping[str, str] | None
    env_rm: Sequence[str] | None
    labels: Mapping[str, str] | None
    labels_rm: Sequence[str] | None
    workdir: str | None
    secrets: Mapping[str, SecretModifySpec] | None
    secrets_rm: Sequence[str] | None
    policy: ModificationPolicy | None
    dry_run: bool
    ports: Mapping[int, int] | Sequence[PortBinding] | None
    ports_rm: Sequence[PortEndpoint] | None


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


#: What this build cannot change, and when it can.
_LATER = {
    ("root_disk_size",): "when root disk options land",
    ("secrets", "secrets_rm"): "when secrets land",
    ("ports", "ports_rm"): "when sandbox networking lands",
}


def request(options: Mapping[str, Any]) -> dict[str, Any]:
    """What the native call takes; what this build cannot change is refused by name, before anything else happens."""
    refuse_unknown("modify", options, ModifyKeywords.__annotations__)
    asked = {**options}
    for names, hint in _LATER.items():
        given = [asked.pop(name, None) for name in names]
        if any(value is not None and value != {} and value != [] and value != () for value in given):
            raise unsupported(f"modify({', '.join(f'{name}=' for name in names)})", hint)
    return asked


def plan(raw: dict[str, Any]) -> SandboxModificationPlan:
    """The native answer with members of enums."""
    result: SandboxModificationPlan = {
        "sandbox": raw["sandbox"],
        "status": raw["status"],
        "applied": raw["applied"],
        "policy": raw["policy"],
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
    change: ChangeKind,
    disposition: ModificationDisposition,
    before: Union[str, None],
    after: Union[str, None],
    reason: Union[str, None],
) -> ConfigPlannedChange:
    result: ConfigPlannedChange = {
        "kind": PlannedChangeKind.CONFIG,
        "field": field,
        "change": change,
        "disposition": disposition,
    }
    named = "" if name is None else f"{name}="
    if before is not None:
        result["before"] = named + before
    if after is not None:
        result["after"] = named + after
    if reason is not None:
        result["reason"] = reason
    return result
