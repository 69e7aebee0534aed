"""Snapshots: the names of the surface. Every operation raises `UnsupportedError` until snapshots land."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from . import _deprecation
from ._runtime import mark_eager
from ._unsupported import SNAPSHOTS, unsupported

if TYPE_CHECKING:
    from ._config import Path
    from ._enums import GuestFlush, SnapshotFormat, SnapshotScope, SnapshotStateKind
    from ._storage import StorageItemUsage

#: `Snapshot.list` hides the builtin inside the class.
_List = list


async def _refused(operation: str, hint: str) -> NoReturn:
    raise unsupported(operation, hint)


@dataclass(frozen=True)
class SnapshotArchive:
    """A snapshot written straight to an archive.

    Example: `print((await Snapshot.create_archive("base", "base.tar.zst", from_sandbox="box")).path)`
    """

    id: str
    descriptor_digest: str
    path: str


class Snapshot:
    """The saved disk of a sandbox.

    Example: `snapshot = await Snapshot.create("base", from_sandbox="box")`
    """

    def __init__(self) -> None:
        raise unsupported("Snapshot", SNAPSHOTS)

    @staticmethod
    def create(
        name: str = "",
        *,
        from_sandbox: str,
        dest_dir: Path | None = None,
        labels: Mapping[str, str] | None = None,
        force: bool = False,
        record_integrity: bool = False,
        resumable: bool = False,
        group: str | None = None,
        full: bool = False,
        guest_flush: GuestFlush | None = None,
    ) -> Coroutine[Any, Any, Snapshot]:
        """Saves a sandbox's disk. `UnsupportedError` for now.

        Example: `snapshot = await Snapshot.create("base", from_sandbox="box")`
        """
        if resumable:
            _deprecation.warn("Snapshot.create(resumable=)", "full=")
        return _refused("Snapshot.create", SNAPSHOTS)

    @staticmethod
    async def create_archive(
        name: str,
        archive: Path,
        *,
        from_sandbox: str,
        group: str | None = None,
        labels: Mapping[str, str] | None = None,
        force: bool = False,
        record_integrity: bool = False,
        full: bool = False,
        plain_tar: bool = False,
        guest_flush: GuestFlush | None = None,
    ) -> SnapshotArchive:
        """Saves a sandbox's disk to an archive. `UnsupportedError` for now.

        Example: `archive = await Snapshot.create_archive("base", "base.tar.zst", from_sandbox="box")`
        """
        raise unsupported("Snapshot.create_archive", SNAPSHOTS)

    @staticmethod
    async def open(path_or_name: Path) -> Snapshot:
        """A snapshot by name or path. `UnsupportedError` for now.

        Example: `snapshot = await Snapshot.open("base")`
        """
        raise unsupported("Snapshot.open", SNAPSHOTS)

    @staticmethod
    async def get(name_or_digest: str) -> SnapshotHandle:
        """The record of a snapshot. `UnsupportedError` for now.

        Example: `snapshot = await Snapshot.get("base")`
        """
        raise unsupported("Snapshot.get", SNAPSHOTS)

    @staticmethod
    async def list() -> _List[SnapshotHandle]:
        """Every snapshot. `UnsupportedError` for now.

        Example: `snapshots = await Snapshot.list()`
        """
        raise unsupported("Snapshot.list", SNAPSHOTS)

    @staticmethod
    async def list_dir(dir: Path) -> _List[Snapshot]:
        """Snapshots of a directory. `UnsupportedError` for now.

        Example: `snapshots = await Snapshot.list_dir("/srv/snapshots")`
        """
        raise unsupported("Snapshot.list_dir", SNAPSHOTS)

    @staticmethod
    async def remove(path_or_name: Path, *, force: bool = False) -> None:
        """Removes a snapshot. `UnsupportedError` for now.

        Example: `await Snapshot.remove("base", force=True)`
        """
        raise unsupported("Snapshot.remove", SNAPSHOTS)

    @staticmethod
    async def reindex(dir: Path | None = None) -> int:
        """Records snapshots found on disk. `UnsupportedError` for now.

        Example: `count = await Snapshot.reindex()`
        """
        raise unsupported("Snapshot.reindex", SNAPSHOTS)

    @staticmethod
    async def save(
        name_or_path: Path,
        out: Path,
        *,
        with_parents: bool = False,
        with_image: bool = False,
        plain_tar: bool = False,
        since: str | None = None,
        last_layers: int | None = None,
    ) -> None:
        """Writes a snapshot to an archive. `UnsupportedError` for now.

        Example: `await Snapshot.save("base", "base.tar.zst", with_image=True)`
        """
        raise unsupported("Snapshot.save", SNAPSHOTS)

    @staticmethod
    async def load(
        archive: Path,
        *,
        dest: Path | None = None,
        base: str | None = None,
        group: str | None = None,
        set_head: bool = False,
    ) -> SnapshotHandle:
        """Reads a snapshot from an archive. `UnsupportedError` for now.

        Example: `snapshot = await Snapshot.load("base.tar.zst")`
        """
        raise unsupported("Snapshot.load", SNAPSHOTS)

    @staticmethod
    async def load_many(
        archives: Sequence[Path],
        *,
        dest: Path | None = None,
        base: str | None = None,
        group: str | None = None,
        set_head: bool = False,
    ) -> _List[SnapshotHandle]:
        """Reads several. `UnsupportedError` for now.

        Example: `snapshots = await Snapshot.load_many(["base.tar.zst", "delta.tar.zst"])`
        """
        raise unsupported("Snapshot.load_many", SNAPSHOTS)

    @staticmethod
    async def group_head(selector: str) -> dict[str, Any]:
        """The head of a group. `UnsupportedError` for now.

        Example: `head = await Snapshot.group_head("nightly")`
        """
        raise unsupported("Snapshot.group_head", SNAPSHOTS)

    @property
    def id(self) -> str:
        """Its identity."""
        raise unsupported("Snapshot.id", SNAPSHOTS)

    @property
    def reference(self) -> str:
        """What it is found by: an id or a path."""
        raise unsupported("Snapshot.reference", SNAPSHOTS)

    @property
    def reference_kind(self) -> str:
        """`id` or `path`."""
        raise unsupported("Snapshot.reference_kind", SNAPSHOTS)

    @property
    def path(self) -> str:
        """Where it is on this machine; the older spelling of `reference`."""
        _deprecation.warn("Snapshot.path", "Snapshot.reference")
        raise unsupported("Snapshot.path", SNAPSHOTS)

    @property
    def digest(self) -> str:
        """`sha256:…` of its descriptor."""
        raise unsupported("Snapshot.digest", SNAPSHOTS)

    @property
    def size_bytes(self) -> int | None:
        """Its disk, bytes."""
        raise unsupported("Snapshot.size_bytes", SNAPSHOTS)

    @property
    def image_ref(self) -> str:
        """The image that its sandbox was made from."""
        raise unsupported("Snapshot.image_ref", SNAPSHOTS)

    @property
    def image_manifest_digest(self) -> str:
        """`sha256:…` of that image's manifest."""
        raise unsupported("Snapshot.image_manifest_digest", SNAPSHOTS)

    @property
    def state_kind(self) -> SnapshotStateKind:
        """Files only, or memory too."""
        raise unsupported("Snapshot.state_kind", SNAPSHOTS)

    @property
    def format(self) -> SnapshotFormat | None:
        """Of its disk."""
        raise unsupported("Snapshot.format", SNAPSHOTS)

    @property
    def fstype(self) -> str | None:
        """Of its disk."""
        raise unsupported("Snapshot.fstype", SNAPSHOTS)

    @property
    def checkpoint_id(self) -> str | None:
        """Of the memory."""
        raise unsupported("Snapshot.checkpoint_id", SNAPSHOTS)

    @property
    def checkpoint_manifest_digest(self) -> str | None:
        """Of the memory."""
        raise unsupported("Snapshot.checkpoint_manifest_digest", SNAPSHOTS)

    @property
    def parent(self) -> str | None:
        """The snapshot below it."""
        raise unsupported("Snapshot.parent", SNAPSHOTS)

    @property
    def scope(self) -> SnapshotScope:
        """Disk, or everything."""
        raise unsupported("Snapshot.scope", SNAPSHOTS)

    @property
    def created_at(self) -> str:
        """RFC 3339."""
        raise unsupported("Snapshot.created_at", SNAPSHOTS)

    @property
    def labels(self) -> dict[str, str]:
        """Labels of the snapshot."""
        raise unsupported("Snapshot.labels", SNAPSHOTS)

    @property
    def source_sandbox(self) -> str | None:
        """The sandbox that it was made from."""
        raise unsupported("Snapshot.source_sandbox", SNAPSHOTS)

    @property
    def head_update(self) -> dict[str, Any] | None:
        """What became of its group's head."""
        raise unsupported("Snapshot.head_update", SNAPSHOTS)

    async def verify(self) -> dict[str, Any]:
        """Compares its disk with the digest it was made with. `UnsupportedError` for now.

        Example: `print((await snapshot.verify())["upper"]["kind"])`
        """
        raise unsupported("Snapshot.verify", SNAPSHOTS)

    async def save_to(
        self,
        out: Path,
        *,
        with_parents: bool = False,
        with_image: bool = False,
        plain_tar: bool = False,
        since: str | None = None,
        last_layers: int | None = None,
    ) -> None:
        """Writes it to an archive. `UnsupportedError` for now.

        Example: `await snapshot.save_to("base.tar.zst", with_image=True)`
        """
        raise unsupported("Snapshot.save_to", SNAPSHOTS)

    def copy_to(self, path: Path) -> SnapshotCopyBuilder:
        """A copy elsewhere. `UnsupportedError` for now.

        Example: `await snapshot.copy_to("/srv/base").labels({"team": "data"}).save()`
        """
        raise unsupported("Snapshot.copy_to", SNAPSHOTS)

    async def storage_usage(self) -> StorageItemUsage:
        """Its disk space. `UnsupportedError` for now.

        Example: `print((await snapshot.storage_usage()).allocated_bytes)`
        """
        raise unsupported("Snapshot.storage_usage", SNAPSHOTS)


class SnapshotCopyBuilder:
    """A copy in the making, from `Snapshot.copy_to`. `UnsupportedError` for now.

    Example: `await snapshot.copy_to("/srv/base").record_integrity(True).save()`
    """

    def __init__(self) -> None:
        raise unsupported("SnapshotCopyBuilder", SNAPSHOTS)

    def labels(self, labels: Mapping[str, str]) -> SnapshotCopyBuilder:
        """Labels of the copy.

        Example: `builder = snapshot.copy_to("/srv/base").labels({"team": "data"})`
        """
        raise unsupported("SnapshotCopyBuilder.labels", SNAPSHOTS)

    def record_integrity(self, record: bool) -> SnapshotCopyBuilder:
        """Whether the copy keeps a digest of its disk.

        Example: `builder = snapshot.copy_to("/srv/base").record_integrity(True)`
        """
        raise unsupported("SnapshotCopyBuilder.record_integrity", SNAPSHOTS)

    async def save(self) -> Snapshot:
        """Makes the copy.

        Example: `copy = await snapshot.copy_to("/srv/base").save()`
        """
        raise unsupported("SnapshotCopyBuilder.save", SNAPSHOTS)


class SnapshotHandle:
    """The record of a snapshot. None exists until snapshots land.

    Example: `snapshot = await Snapshot.get("base")`
    """

    def __init__(self) -> None:
        raise unsupported("SnapshotHandle", SNAPSHOTS)

    @property
    def name(self) -> str | None:
        """Its name."""
        raise unsupported("SnapshotHandle.name", SNAPSHOTS)

    @property
    def digest(self) -> str:
        """`sha256:…` of its descriptor."""
        raise unsupported("SnapshotHandle.digest", SNAPSHOTS)

    @property
    def parent_digest(self) -> str | None:
        """Of the snapshot below it."""
        raise unsupported("SnapshotHandle.parent_digest", SNAPSHOTS)

    @property
    def scope(self) -> SnapshotScope:
        """Disk, or everything."""
        raise unsupported("SnapshotHandle.scope", SNAPSHOTS)

    @property
    def image_ref(self) -> str:
        """The image that its sandbox was made from."""
        raise unsupported("SnapshotHandle.image_ref", SNAPSHOTS)

    @property
    def state_kind(self) -> SnapshotStateKind:
        """Files only, or memory too."""
        raise unsupported("SnapshotHandle.state_kind", SNAPSHOTS)

    @property
    def format(self) -> SnapshotFormat | None:
        """Of its disk."""
        raise unsupported("SnapshotHandle.format", SNAPSHOTS)

    @property
    def fstype(self) -> str | None:
        """Of its disk."""
        raise unsupported("SnapshotHandle.fstype", SNAPSHOTS)

    @property
    def checkpoint_manifest_digest(self) -> str | None:
        """Of the memory."""
        raise unsupported("SnapshotHandle.checkpoint_manifest_digest", SNAPSHOTS)

    @property
    def size_bytes(self) -> int | None:
        """Its disk, bytes."""
        raise unsupported("SnapshotHandle.size_bytes", SNAPSHOTS)

    @property
    def locality(self) -> str:
        """Where it is."""
        raise unsupported("SnapshotHandle.locality", SNAPSHOTS)

    @property
    def availability(self) -> str:
        """Whether it can be used now."""
        raise unsupported("SnapshotHandle.availability", SNAPSHOTS)

    @property
    def migration_state(self) -> str:
        """Of an artifact of an older version."""
        raise unsupported("SnapshotHandle.migration_state", SNAPSHOTS)

    @property
    def migration_error_code(self) -> str | None:
        """Why that failed."""
        raise unsupported("SnapshotHandle.migration_error_code", SNAPSHOTS)

    @property
    def created_at(self) -> float:
        """Milliseconds since the epoch."""
        raise unsupported("SnapshotHandle.created_at", SNAPSHOTS)

    @property
    def path(self) -> str:
        """Where it is on this machine."""
        raise unsupported("SnapshotHandle.path", SNAPSHOTS)

    @property
    def id(self) -> str:
        """Its identity."""
        raise unsupported("SnapshotHandle.id", SNAPSHOTS)

    @property
    def group(self) -> str | None:
        """The group that it belongs to."""
        raise unsupported("SnapshotHandle.group", SNAPSHOTS)

    @property
    def reference(self) -> str:
        """What it is found by: an id or a path."""
        raise unsupported("SnapshotHandle.reference", SNAPSHOTS)

    @property
    def reference_kind(self) -> str:
        """`id` or `path`."""
        raise unsupported("SnapshotHandle.reference_kind", SNAPSHOTS)

    @property
    def head_update(self) -> dict[str, Any] | None:
        """What became of its group's head."""
        raise unsupported("SnapshotHandle.head_update", SNAPSHOTS)

    async def open(self) -> Snapshot:
        """The snapshot itself. `UnsupportedError` for now.

        Example: `snapshot = await record.open()`
        """
        raise unsupported("SnapshotHandle.open", SNAPSHOTS)

    async def remove(self, *, force: bool = False) -> None:
        """Removes it. `UnsupportedError` for now.

        Example: `await record.remove(force=True)`
        """
        raise unsupported("SnapshotHandle.remove", SNAPSHOTS)

    async def save_to(
        self,
        out: Path,
        *,
        with_parents: bool = False,
        with_image: bool = False,
        plain_tar: bool = False,
        since: str | None = None,
        last_layers: int | None = None,
    ) -> None:
        """Writes it to an archive. `UnsupportedError` for now.

        Example: `await record.save_to("base.tar.zst")`
        """
        raise unsupported("SnapshotHandle.save_to", SNAPSHOTS)

    async def storage_usage(self) -> StorageItemUsage:
        """Its disk space. `UnsupportedError` for now.

        Example: `print((await record.storage_usage()).allocated_bytes)`
        """
        raise unsupported("SnapshotHandle.storage_usage", SNAPSHOTS)


mark_eager(Snapshot.create)
