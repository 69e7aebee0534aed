"""Where a root file system comes from, and the shape of its writable part."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Union

from ._checks import Path, serialised
from ._enums import DiskImageFormat, FlatClone, ImageSourceKind, RootDiskKind


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
