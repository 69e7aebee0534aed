"""Small frozen values that calls take: images, mounts, programs' limits and input."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict, Union

from ._checks import serialised
from ._enums import (
    DiskImageFormat,
    FlatClone,
    HostPermissions,
    ImageSourceKind,
    Isolation,
    MechanismState,
    MountKind,
    NamedVolumeMode,
    RlimitResource,
    RootDiskKind,
    StatVirtualization,
    StdinMode,
    VolumeKind,
)

Path = Union[str, "os.PathLike[str]"]

#: Bytes of a mebibyte.
MiB = 1048576
#: Bytes of a gibibyte.
GiB = 1073741824


@dataclass(frozen=True)
class Size:
    """An amount of memory or disk.

    Example: `Size.gib(2).mib_count == 2048`.
    """

    bytes: int

    @classmethod
    def mib(cls, n: int) -> Size:
        """`n` mebibytes.

        Example: `assert Size.mib(2).bytes == 2 * MiB`
        """
        return cls(n * MiB)

    @classmethod
    def gib(cls, n: int) -> Size:
        """`n` gibibytes.

        Example: `assert Size.gib(1).mib_count == 1024`
        """
        return cls(n * GiB)

    @property
    def mib_count(self) -> int:
        """Whole mebibytes."""
        return self.bytes // MiB


@dataclass(frozen=True)
class Rlimit:
    """A soft and a hard limit of one resource, in the units of setrlimit(2).

    Example: `await sb.exec("make", rlimits=[Rlimit.nofile(256)])`.
    """

    resource: RlimitResource
    soft: int
    hard: int

    @classmethod
    def nofile(cls, limit: int) -> Rlimit:
        """Open files.

        Example: `await sb.exec("make", rlimits=[Rlimit.nofile(4096)])`
        """
        return cls(RlimitResource.NOFILE, limit, limit)

    @classmethod
    def cpu(cls, secs: int) -> Rlimit:
        """CPU seconds.

        Example: `await sb.exec("make", rlimits=[Rlimit.cpu(60)])`
        """
        return cls(RlimitResource.CPU, secs, secs)

    @classmethod
    def as_(cls, *, soft: int, hard: int) -> Rlimit:
        """Address space, bytes.

        Example: `await sb.exec("make", rlimits=[Rlimit.as_(soft=1 << 30, hard=2 << 30)])`
        """
        return cls(RlimitResource.AS, soft, hard)

    @classmethod
    def nproc(cls, limit: int) -> Rlimit:
        """Processes of the user.

        Example: `await sb.exec("make", rlimits=[Rlimit.nproc(64)])`
        """
        return cls(RlimitResource.NPROC, limit, limit)

    @classmethod
    def fsize(cls, limit: int) -> Rlimit:
        """Size of one written file, bytes.

        Example: `await sb.exec("make", rlimits=[Rlimit.fsize(100 << 20)])`
        """
        return cls(RlimitResource.FSIZE, limit, limit)

    @classmethod
    def memlock(cls, limit: int) -> Rlimit:
        """Locked memory, bytes.

        Example: `await sb.exec("make", rlimits=[Rlimit.memlock(64 << 10)])`
        """
        return cls(RlimitResource.MEMLOCK, limit, limit)

    @classmethod
    def stack(cls, limit: int) -> Rlimit:
        """Stack, bytes.

        Example: `await sb.exec("make", rlimits=[Rlimit.stack(8 << 20)])`
        """
        return cls(RlimitResource.STACK, limit, limit)

    def _to_dict(self) -> dict[str, Any]:
        return serialised(self, {"resource": RlimitResource})


@dataclass(frozen=True)
class Stdin:
    """What a program reads as standard input; nothing unless said otherwise.

    Example: `await sb.exec("wc", stdin=Stdin.bytes(b"one two"))`.
    """

    _mode: StdinMode
    _data: Union[bytes, None] = None

    @classmethod
    def null(cls) -> Stdin:
        """An empty input.

        Example: `await sb.exec("cat", stdin=Stdin.null())`
        """
        return cls(StdinMode.NULL)

    @classmethod
    def pipe(cls) -> Stdin:
        """Written through `ExecHandle.take_stdin`; streaming calls only.

        Example: `process = await sb.exec_stream("cat", stdin=Stdin.pipe())`
        """
        return cls(StdinMode.PIPE)

    @classmethod
    def bytes(cls, data: Any) -> Stdin:
        """These bytes, then the end of file.

        Example: `await sb.exec("wc", ["-c"], stdin=Stdin.bytes(b"12345"))`
        """
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"Stdin.bytes() needs bytes, not {type(data).__name__}")
        return cls(StdinMode.BYTES, bytes(data))


@dataclass(frozen=True)
class ExitStatus:
    """How a program ended: its exit status (or 128 + signal), and whether that is 0.

    Example: `status = ExitStatus(*await process.wait())`
    """

    code: int
    success: bool


class ExecOptions(TypedDict, total=False):
    """Second positional argument of `exec` and `exec_stream` as a mapping; its values win over keywords.

    Example: `await sb.exec("make", ExecOptions(args=["-j2"], cwd="/src", timeout=600))`
    """

    args: list[str]
    cwd: str
    user: str
    env: Mapping[str, str]
    timeout: float
    stdin: Union[Stdin, bytes]
    stdin_data: bytes
    tty: bool
    rlimits: list[Rlimit]
    max_output_bytes: int


@dataclass(frozen=True)
class RegistryAuth:
    """Credentials of a registry. Its `repr` hides the password.

    Example: `auth = RegistryAuth("me", os.environ["REGISTRY_PASSWORD"])`
    """

    username: str
    password: str = field(repr=False)

    @classmethod
    def basic(cls, username: str, password: str) -> RegistryAuth:
        """User name and password (or token).

        Example: `auth = RegistryAuth.basic("me", os.environ["REGISTRY_PASSWORD"])`
        """
        return cls(username, password)

    def _to_dict(self) -> dict[str, Any]:
        for name in ("username", "password"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"RegistryAuth.{name} must be str")
        return {"username": self.username, "password": self.password}


@dataclass(frozen=True)
class RootDiskConfig:
    """Shape of a sandbox's writable root; made by `RootDisk`.

    Example: `disk: RootDiskConfig = RootDisk.managed(8192)`
    """

    kind: RootDiskKind
    size_mib: Union[int, None] = None
    path: Union[str, None] = None
    format: Union[DiskImageFormat, None] = None
    fstype: Union[str, None] = None
    clone: Union[FlatClone, None] = None

    def _to_dict(self) -> dict[str, Any]:
        kinds = {"kind": RootDiskKind, "format": DiskImageFormat, "clone": FlatClone}
        result = serialised(self, kinds)
        allowed = {
            "managed": {"size_mib"},
            "tmpfs": {"size_mib"},
            "disk-image": {"path", "format", "fstype"},
            "flat": {"size_mib", "fstype", "clone"},
        }[result["kind"]]
        foreign = sorted(set(result) - allowed - {"kind"})
        if foreign:
            raise ValueError(f"a {result['kind']} root disk does not take {', '.join(foreign)}")
        return result


class RootDisk:
    """Factories of `RootDiskConfig`.

    Example: `Image.oci("debian:12", root_disk=RootDisk.managed(8192))`
    """

    @staticmethod
    def managed(size_mib: Union[int, None] = None) -> RootDiskConfig:
        """A disk that the product makes and grows; 4096 MiB by default.

        Example: `Image.oci("debian:12", root_disk=RootDisk.managed(8192))`
        """
        return RootDiskConfig(RootDiskKind.MANAGED, size_mib=size_mib)

    @staticmethod
    def tmpfs(size_mib: Union[int, None] = None) -> RootDiskConfig:
        """Memory; gone when the sandbox stops.

        Example: `Image.oci("debian:12", root_disk=RootDisk.tmpfs(1024))`
        """
        return RootDiskConfig(RootDiskKind.TMPFS, size_mib=size_mib)

    @staticmethod
    def disk(
        path: Path, *, format: Union[DiskImageFormat, None] = None, fstype: Union[str, None] = None
    ) -> RootDiskConfig:
        """An image file of yours.

        Example: `Image.oci("debian:12", root_disk=RootDisk.disk("root.qcow2"))`
        """
        return RootDiskConfig(RootDiskKind.DISK_IMAGE, path=os.fspath(path), format=format, fstype=fstype)

    @staticmethod
    def flat(
        size_mib: Union[int, None] = None, *, fstype: Union[str, None] = None, clone: FlatClone = FlatClone.AUTO
    ) -> RootDiskConfig:
        """The image copied into one disk.

        Example: `Image.oci("debian:12", root_disk=RootDisk.flat(8192))`
        """
        return RootDiskConfig(RootDiskKind.FLAT, size_mib=size_mib, fstype=fstype, clone=clone)


@dataclass(frozen=True)
class ImageSource:
    """Where a root file system comes from; made by `Image.oci`, `.bind`, `.disk` and `.host`.

    Example: `source: ImageSource = Image.host()`
    """

    _type: ImageSourceKind
    _path: Union[str, None] = None
    _reference: Union[str, None] = None
    _root_disk: Union[RootDiskConfig, int, None] = None
    _upper_size_mib: Union[int, None] = None
    _fstype: Union[str, None] = None
    _format: Union[DiskImageFormat, None] = None

    def _to_dict(self) -> dict[str, Any]:
        result = serialised(self, {"_type": ImageSourceKind, "_format": DiskImageFormat})
        if isinstance(self._root_disk, RootDiskConfig):
            result["root_disk"] = self._root_disk._to_dict()
        return result


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


@dataclass(frozen=True)
class InitConfig:
    """A program that becomes process 1 of the sandbox.

    Example: `InitConfig("/sbin/init", ("--unit=multi-user.target",), {"container": "other"})`
    """

    cmd: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)

    def _to_dict(self) -> dict[str, Any]:
        return {"cmd": self.cmd, "args": list(self.args), "env": dict(self.env)}


class _InitRequired(TypedDict):
    cmd: str


class InitOptions(_InitRequired, total=False):
    """`InitConfig` as a mapping.

    Example: `sb = await Sandbox.create("box", image="debian:12", init=InitOptions(cmd="/sbin/init"))`
    """

    args: list[str]
    env: dict[str, str]


@dataclass(frozen=True)
class Mechanism:
    """One mechanism of isolation: its state, and why it is not on (or what exactly is).

    Example: `print([(m.name, m.state) for m in (await sb.isolation_report()).mechanisms])`
    """

    name: str
    state: MechanismState
    reason: Union[str, None] = None


@dataclass(frozen=True)
class IsolationReport:
    """What separates a sandbox from its host: driver (`container` or `microvm`), accelerator, each mechanism.

    Example: `print([m.name for m in (await sb.isolation_report()).mechanisms if m.reason])`
    """

    driver: str
    accelerator: Union[str, None]
    mechanisms: tuple[Mechanism, ...]


@dataclass(frozen=True)
class DoctorCheck:
    """One thing that `doctor` looked at, and what to do when it is not on.

    Example: `print([check.hint for check in (await doctor()).checks if check.hint])`
    """

    name: str
    state: MechanismState
    detail: str
    hint: Union[str, None] = None


@dataclass(frozen=True)
class LibraryRung:
    """One place where the guest kernel's library (libkrunfw) is looked for.

    `rung` is `MSB_LIBKRUNFW_PATH`, `set_libkrunfw_path`, `paths.libkrunfw`, `system` or `home`; `found` is `unset`,
    `absent`, `unusable`, `taken` or `passed over` (an earlier place decided); `detail` says why, or the digest.

    Example: `print([rung.found for rung in (await doctor()).libkrunfw])`
    """

    rung: str
    path: Union[Path, None]
    found: str
    detail: Union[str, None] = None


@dataclass(frozen=True)
class BootStep:
    """One step of a boot: whose (`sdk` or `runtime`), which, and when it was finished, in µs since the request.

    Example: `print(max(sb.boot_timings, key=lambda step: step.at_us))`
    """

    side: str
    step: str
    at_us: int


@dataclass(frozen=True)
class DoctorReport:
    """What isolation `Isolation.AUTO` gives on this host, why not more, and every check.

    Example: `report = await doctor(); print(report.isolation, report.hint)`
    """

    isolation: Isolation
    reason: Union[str, None]
    hint: Union[str, None]
    checks: tuple[DoctorCheck, ...]
    #: Where the guest kernel's library was looked for, in order.
    libkrunfw: tuple[LibraryRung, ...] = ()
