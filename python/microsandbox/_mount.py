"""What a sandbox mounts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict, Union

from ._checks import serialised
from ._enums import (
    DiskImageFormat,
    HostPermissions,
    MountKind,
    NamedVolumeMode,
    StatVirtualization,
    VolumeKind,
)
from ._signature import refuse_unknown


class FlagKeywords(TypedDict, total=False):
    """Keywords of every mount."""

    readonly: bool
    noexec: bool
    nosuid: bool
    nodev: bool


class MountKeywords(FlagKeywords, total=False):
    """Keywords of mounts of directories."""

    stat_virtualization: StatVirtualization | None
    host_permissions: HostPermissions | None
    uid: int | None
    gid: int | None


def policies(given: MountKeywords) -> dict[str, Any]:
    """The keywords as fields of `MountConfig`."""
    refuse_unknown("Volume", given, MountKeywords.__annotations__)
    renamed = {"uid": "override_uid", "gid": "override_gid"}
    return {renamed.get(name, name): value for name, value in given.items()}


@dataclass(frozen=True)
class MountConfig:
    """One mount; made by the factories of `Volume`.

    Example: `mounts: dict[str, MountConfig] = {"/data": Volume.bind("/srv/data", readonly=True)}`
    """

    kind: MountKind
    bind: Union[str, None] = None
    named: Union[str, None] = None
    named_mode: Union[NamedVolumeMode, None] = None
    named_kind: Union[VolumeKind, None] = None
    quota_mib: Union[int, None] = None
    size_mib: Union[int, None] = None
    readonly: bool = False
    noexec: bool = False
    nosuid: bool = False
    nodev: bool = False
    disk: Union[str, None] = None
    format: Union[DiskImageFormat, None] = None
    fstype: Union[str, None] = None
    stat_virtualization: Union[StatVirtualization, None] = None
    host_permissions: Union[HostPermissions, None] = None
    override_uid: Union[int, None] = None
    override_gid: Union[int, None] = None
    owned_kind: Union[VolumeKind, None] = None

    def __post_init__(self) -> None:
        self._to_dict()

    def _to_dict(self) -> dict[str, Any]:
        result = serialised(
            self,
            {
                "kind": MountKind,
                "named_mode": NamedVolumeMode,
                "named_kind": VolumeKind,
                "format": DiskImageFormat,
                "stat_virtualization": StatVirtualization,
                "host_permissions": HostPermissions,
                "owned_kind": VolumeKind,
            },
        )
        self._check_policies(result)
        self._check_owned(result)
        return result

    def _check_policies(self, result: dict[str, Any]) -> None:
        directory = result["kind"] in ("bind", "named") or (
            result["kind"] == "owned" and result.get("owned_kind") != "disk"
        )
        policies = ("stat_virtualization", "host_permissions", "override_uid", "override_gid")
        given = [name for name in policies if name in result]
        if given and not directory:
            raise ValueError(f"{', '.join(given)}: only valid for BIND/NAMED mounts")
        ids = (self.override_uid, self.override_gid)
        if (ids[0] is None) != (ids[1] is None):
            raise ValueError("override_uid and override_gid go together")
        if ids[0] is not None and result.get("stat_virtualization") == "off":
            raise ValueError("override_uid and override_gid need stat virtualization")
        for value in ids:
            if value is not None and not 0 <= value <= 4294967295:
                raise ValueError(f"a user or group id must be 0 to 4294967295: got {value}")

    def _check_owned(self, result: dict[str, Any]) -> None:
        if result["kind"] != "owned":
            return
        foreign = [
            name for name in ("bind", "named", "named_mode", "named_kind", "disk", "format", "fstype") if name in result
        ]
        if foreign:
            raise ValueError(f"an owned mount does not take {', '.join(foreign)}")
        sized = self.size_mib is not None and self.size_mib > 0
        if result.get("owned_kind") == "disk" and (not sized or self.quota_mib is not None):
            raise ValueError("an owned disk needs a positive size_mib and no quota_mib")
