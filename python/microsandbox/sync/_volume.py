# Generated from _volume.py by python/tools/generate_sync.py: change that, not this.
"""Named volumes, and the mounts of a sandbox."""
from __future__ import annotations
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from .. import _backend, _microsandbox
from .. import _unsupported as later
from .._config import MountConfig, Path
from .._enums import DiskImageFormat, HostPermissions, MountKind, NamedVolumeMode, StatVirtualization, VolumeKind
from .._runtime import wait as run
from .._unsupported import unsupported
if TYPE_CHECKING:
    from .._microsandbox import NativeVolume

class VolumeFs:
    """Files of a volume, on the host side. `UnsupportedError` for now."""

    def read(self, path: str) -> bytes:
        """The whole file."""
        raise unsupported('VolumeFs.read', later.VOLUME_FILES)

    def read_text(self, path: str) -> str:
        """The whole file as UTF-8."""
        raise unsupported('VolumeFs.read_text', later.VOLUME_FILES)

    def write(self, path: str, data: bytes) -> None:
        """Creates or truncates a file."""
        raise unsupported('VolumeFs.write', later.VOLUME_FILES)

    def list(self, path: str) -> Sequence[Any]:
        """Entries of a directory."""
        raise unsupported('VolumeFs.list', later.VOLUME_FILES)

    def mkdir(self, path: str) -> None:
        """Makes a directory and its parents."""
        raise unsupported('VolumeFs.mkdir', later.VOLUME_FILES)

    def remove_file(self, path: str) -> None:
        """Removes a file."""
        raise unsupported('VolumeFs.remove_file', later.VOLUME_FILES)

    def remove_dir(self, path: str) -> None:
        """Removes a directory tree."""
        raise unsupported('VolumeFs.remove_dir', later.VOLUME_FILES)

    def copy(self, from_: str, to: str) -> None:
        """Copies a file."""
        raise unsupported('VolumeFs.copy', later.VOLUME_FILES)

    def rename(self, from_: str, to: str) -> None:
        """Renames a file."""
        raise unsupported('VolumeFs.rename', later.VOLUME_FILES)

    def stat(self, path: str) -> Any:
        """Kind, size, mode and times."""
        raise unsupported('VolumeFs.stat', later.VOLUME_FILES)

    def exists(self, path: str) -> bool:
        """Whether the path is there."""
        raise unsupported('VolumeFs.exists', later.VOLUME_FILES)

class VolumeHandle:
    """The record of a volume."""

    def __init__(self, native: NativeVolume) -> None:
        self._native = native

    @property
    def name(self) -> str:
        """Its name."""
        return self._native.name

    @property
    def is_default(self) -> bool:
        """Whether it is the account's default volume; never on this machine."""
        return False

    @property
    def kind(self) -> VolumeKind:
        """Directory or disk."""
        return self._native.kind

    @property
    def quota_mib(self) -> int | None:
        """Bound of a directory volume, MiB."""
        return self._native.quota_mib

    @property
    def labels(self) -> Mapping[str, str]:
        """Its labels."""
        return self._native.labels

    @property
    def fs(self) -> VolumeFs:
        """Its files."""
        return VolumeFs()

    def remove(self) -> None:
        """Removes it. Raises `VolumeNotFoundError`, `VolumeInUseError`."""
        run(_microsandbox.volume_remove(self.name, None))

class Volume:
    """Named volumes, and factories of `MountConfig`. `create` refuses mounts with `UnsupportedError` for now."""

    def __init__(self, native: NativeVolume) -> None:
        self._native = native

    @property
    def name(self) -> str:
        """Its name."""
        return self._native.name

    @staticmethod
    def create(name: str, *, kind: VolumeKind=VolumeKind.DIRECTORY, size_mib: int | None=None, quota_mib: int | None=None, labels: Mapping[str, str] | None=None, backend: _backend.BackendObject | None=None) -> Volume:
        """Makes a volume. A disk needs `size_mib`; `quota_mib` bounds a directory.

        Raises `VolumeAlreadyExistsError`, `InvalidConfigError`.
        """
        call = _microsandbox.volume_create(name, kind, size_mib, quota_mib, labels, _backend.pick(backend))
        return _made(call)

    @staticmethod
    def get(name: str, *, backend: _backend.BackendObject | None=None) -> VolumeHandle:
        """The record of a volume. Raises `VolumeNotFoundError`."""
        return VolumeHandle(run(_microsandbox.volume_get(name, _backend.pick(backend))))

    @staticmethod
    def list(*, backend: _backend.BackendObject | None=None) -> Sequence[VolumeHandle]:
        """Every volume, as a list."""
        natives = run(_microsandbox.volume_list(_backend.pick(backend)))
        return [VolumeHandle(native) for native in natives]

    @staticmethod
    def remove(name: str, *, backend: _backend.BackendObject | None=None) -> None:
        """Removes a volume. Raises `VolumeNotFoundError`, `VolumeInUseError`."""
        run(_microsandbox.volume_remove(name, _backend.pick(backend)))

    @staticmethod
    def get_default() -> VolumeHandle:
        """The account's default volume; cloud only, `UnsupportedError` here."""
        raise unsupported('Volume.get_default', 'on the cloud backend')

    @staticmethod
    def bind(path: str, *, readonly: bool=False, noexec: bool=False, nosuid: bool=False, nodev: bool=False, stat_virtualization: StatVirtualization | None=None, host_permissions: HostPermissions | None=None, uid: int | None=None, gid: int | None=None) -> MountConfig:
        """A host directory (or file), live both ways."""
        return MountConfig(MountKind.BIND, bind=os.fspath(path), readonly=readonly, noexec=noexec, nosuid=nosuid, nodev=nodev, stat_virtualization=stat_virtualization, host_permissions=host_permissions, override_uid=uid, override_gid=gid)

    @staticmethod
    def named(name: str, *, mode: NamedVolumeMode | None=None, kind: VolumeKind | None=None, size_mib: int | None=None, quota_mib: int | None=None, readonly: bool=False, noexec: bool=False, nosuid: bool=False, nodev: bool=False, stat_virtualization: StatVirtualization | None=None, host_permissions: HostPermissions | None=None, uid: int | None=None, gid: int | None=None) -> MountConfig:
        """A named volume; `mode` says what to do about an absent or existing one (it must exist by default)."""
        return MountConfig(MountKind.NAMED, named=name, named_mode=mode, named_kind=kind, size_mib=size_mib, quota_mib=quota_mib, readonly=readonly, noexec=noexec, nosuid=nosuid, nodev=nodev, stat_virtualization=stat_virtualization, host_permissions=host_permissions, override_uid=uid, override_gid=gid)

    @staticmethod
    def tmpfs(*, size_mib: int | None=None, readonly: bool=False, noexec: bool=False, nosuid: bool=False, nodev: bool=False) -> MountConfig:
        """Memory; writes past `size_mib` give ENOSPC in the guest."""
        return MountConfig(MountKind.TMPFS, size_mib=size_mib, readonly=readonly, noexec=noexec, nosuid=nosuid, nodev=nodev)

    @staticmethod
    def disk(path: Path, *, format: DiskImageFormat | None=None, fstype: str | None=None, readonly: bool=False, noexec: bool=False, nosuid: bool=False, nodev: bool=False) -> MountConfig:
        """A disk image as a block device; its format is its extension unless given."""
        return MountConfig(MountKind.DISK, disk=os.fspath(path), format=format, fstype=fstype, readonly=readonly, noexec=noexec, nosuid=nosuid, nodev=nodev)

    @staticmethod
    def owned(*, kind: VolumeKind | None=None, size_mib: int | None=None, quota_mib: int | None=None, readonly: bool=False, noexec: bool=False, nosuid: bool=False, nodev: bool=False, stat_virtualization: StatVirtualization | None=None, host_permissions: HostPermissions | None=None, uid: int | None=None, gid: int | None=None) -> MountConfig:
        """Private storage that goes with the sandbox."""
        return MountConfig(MountKind.OWNED, owned_kind=kind, size_mib=size_mib, quota_mib=quota_mib, readonly=readonly, noexec=noexec, nosuid=nosuid, nodev=nodev, stat_virtualization=stat_virtualization, host_permissions=host_permissions, override_uid=uid, override_gid=gid)

def _made(call: _microsandbox.Pending[NativeVolume]) -> Volume:
    return Volume(run(call))
