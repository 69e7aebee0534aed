"""What the calls that make a sandbox have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from . import _backend, _deprecation, _progress
from ._signature import refuse_unknown

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

    from ._backend import BackendObject
    from ._checks import Path
    from ._enums import (
        CpuPlacement,
        DeploymentProfile,
        Isolation,
        LogLevel,
        PullPolicy,
        SecurityProfile,
        ViolationAction,
    )
    from ._exec_request import Rlimit
    from ._image_source import ImageSource, RegistryAuth
    from ._init import InitConfig, InitOptions
    from ._mount import MountConfig
    from ._network import Network
    from ._patch import PatchConfig
    from ._ports import PortBinding, VsockRoute
    from ._secrets import SecretEntry, ViolationPolicy

_T = TypeVar("_T")


class CreateKeywords(TypedDict, total=False):
    """Keywords of `create`, `create_with_progress` and `connect_or_create`; None is as good as absent."""

    image: str | os.PathLike[str] | ImageSource | None
    from_snapshot: Path | None
    memory: int | None
    cpus: int | None
    max_memory: int | None
    max_cpus: int | None
    workdir: str | None
    shell: str | None
    security: SecurityProfile | None
    hostname: str | None
    user: str | None
    entrypoint: Sequence[str] | None
    cmd: Sequence[str] | None
    init: str | InitConfig | InitOptions | None
    replace: bool
    replace_with_timeout: float | None
    max_duration: float | None
    idle_timeout: float | None
    ephemeral: bool
    env: Mapping[str, str] | None
    rlimits: list[Rlimit] | None
    labels: Mapping[str, str] | None
    scripts: Mapping[str, str] | None
    pull_policy: PullPolicy | None
    log_level: LogLevel | None
    registry_auth: RegistryAuth | None
    registry_insecure: bool
    registry_ca_certs: list[bytes | bytearray | Path] | None
    volumes: Mapping[str, MountConfig] | None
    patches: Iterable[PatchConfig] | None
    ports: Mapping[int, int] | Sequence[PortBinding] | None
    vsock: Mapping[str, int] | Sequence[VsockRoute] | None
    network: Network | None
    secrets: Iterable[SecretEntry] | None
    on_secret_violation: ViolationAction | ViolationPolicy | None
    secret_violation_action: ViolationAction | None
    intercept_tls: bool
    detached: bool
    cpu_placement: CpuPlacement | None
    placement_profile: str | None
    thp: str | None
    deployment_profile: DeploymentProfile | None
    isolation: Isolation | None
    backend: BackendObject | None


def call(native: Callable[..., _T], name: str, given: Mapping[str, Any]) -> _T:
    """Checks the keywords of `create` and prepares the native call."""
    refuse_unknown("create", given, CreateKeywords.__annotations__)
    options = {**given}
    backend = options.pop("backend", None)
    older, newer = options.get("on_secret_violation"), options.get("secret_violation_action")
    if options.get("from_snapshot") is not None:
        _deprecation.warn("create(from_snapshot=)", "Sandbox.restore(snapshot, name=…)", depth=2)
    if older is not None:
        _deprecation.warn("create(on_secret_violation=)", "secret_violation_action=", depth=2)
        if newer is not None and newer != older:
            raise ValueError("on_secret_violation= and secret_violation_action= differ; give one")
    _deprecation.passthrough(newer, depth=2)
    return native(name, options, _backend.pick(backend))


def shows_pull(given: Mapping[str, Any]) -> bool:
    """Whether `create` may have to pull, and there is somewhere to show it."""
    image = given.get("image")
    reference = image if isinstance(image, str) else getattr(image, "_reference", None)
    return reference is not None and reference != "host" and reference[:1] not in "/." and _progress.is_seen()
