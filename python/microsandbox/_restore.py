"""What the calls that boot a sandbox from a snapshot have in common."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from . import _checks, _deprecation
from ._enums import Isolation, LogLevel, SecurityProfile
from ._signature import refuse_unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._backend import BackendObject
    from ._mount import MountConfig
    from ._network_policy import NetworkPolicy
    from ._ports import PortBinding, VsockRoute


class RestoreKeywords(TypedDict, total=False):
    """Keywords of `restore` and `restore_with_progress`; None is as good as absent."""

    cpus: int | None
    memory: int | None
    network_policy: NetworkPolicy | None
    max_connections: int | None
    max_tcp_connections: int | None
    max_udp_connections: int | None
    disable_network: bool
    security: SecurityProfile | None
    max_duration: float | None
    idle_timeout: float | None
    cow_memory: bool
    forked: bool
    disk_only: bool
    snapshot_base: str | None
    user: str | None
    log_level: LogLevel | None
    volumes: Mapping[str, MountConfig] | None
    captured_volumes: Sequence[str] | None
    ports: Mapping[int, int] | Sequence[PortBinding] | None
    tcp_accept_queue_size: int | None
    max_inbound_tcp_connections: int | None
    vsock: Mapping[str, int] | Sequence[VsockRoute] | None
    external_mount_policy: str
    dangerously_inherit_resources: bool
    allow_missing_resources: bool
    isolation: Isolation | str | None
    backend: BackendObject | None


@dataclass(frozen=True)
class ExternalMountWarning:
    """A host mount that changed since the snapshot, and the inodes that no longer have a file.

    Example: `print([warning.guest_path for warning in await sb.restore_warnings()])`
    """

    guest_path: str
    reason: str
    stale_inodes: list[int]


#: Whole numbers and their bounds.
_RANGES = {
    "cpus": (1, 255),
    "memory": (1, 2**32 - 1),
    **dict.fromkeys(
        (
            "max_connections",
            "max_tcp_connections",
            "max_udp_connections",
            "max_inbound_tcp_connections",
            "tcp_accept_queue_size",
        ),
        (0, 2**32 - 1),
    ),
}


def check(snapshot: object, kinds: tuple[type, type], name: object, given: Mapping[str, Any]) -> None:
    """Types and ranges of what `restore` was given."""
    refuse_unknown("restore", given, RestoreKeywords.__annotations__)
    if not isinstance(snapshot, (str, os.PathLike, *kinds)):
        raise TypeError(f"snapshot must be Snapshot, SnapshotHandle or a path, not {type(snapshot).__name__}")
    if not isinstance(name, str):
        raise TypeError(f"name must be str, not {type(name).__name__}")
    if given.get("forked"):
        _deprecation.warn("restore(forked=)", "cow_memory=", depth=2)
    for key, (low, high) in _RANGES.items():
        if given.get(key) is not None:
            _checks.bounded(key, given[key], low, high)
    for key in ("max_duration", "idle_timeout"):
        if given.get(key) is not None and not _checks.number(key, given[key]) >= 0:
            raise ValueError(f"{key} must be non-negative: got {given[key]!r}")
    for key, kind in (("security", SecurityProfile), ("log_level", LogLevel), ("isolation", Isolation)):
        _checks.checked(given.get(key), kind, key)
    policy = given.get("external_mount_policy", "strict")
    if policy not in ("strict", "relaxed"):
        raise ValueError(f"external_mount_policy must be 'strict' or 'relaxed': got {policy!r}")
