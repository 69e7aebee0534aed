"""Snapshots: the names of the surface. Every operation raises `UnsupportedError` until snapshots land."""

# mypy: disable-error-code="empty-body"

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from . import _deprecation
from ._runtime import mark_eager
from ._signature import spelled_out
from ._unsupported import SNAPSHOTS, refuse_later, refused, unsupported

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._checks import Path
    from ._enums import GuestFlush, SnapshotFormat, SnapshotScope, SnapshotStateKind
    from ._storage import StorageItemUsage

#: `Snapshot.list` hides the builtin inside the class.
_List = list


class SaveKeywords(TypedDict, total=False):
    """Keywords of the calls that write a snapshot to an archive."""

    with_parents: bool
    with_image: bool
    plain_tar: bool
    since: str | None
    last_layers: int | None


class LoadKeywords(TypedDict, total=False):
    """Keywords of the calls that read snapshots from archives."""

    dest: Path | None
    base: str | None
    group: str | None
    set_head: bool


@dataclass(frozen=True)
class SnapshotArchive:
    """A snapshot written straight to an archive.

    Example: `print((await Snapshot.create_archive("base", "base.tar.zst", from_sandbox="box")).path)`
    """

    id: str
    descriptor_digest: str
    path: str


@refused(SNAPSHOTS, "create", "path")
class Snapshot:
    """The saved disk of a sandbox.

    Example: `snapshot = await Snapshot.create("base", from_sandbox="box")`
    """

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
        return refuse_later("Snapshot.create", SNAPSHOTS)

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

    @staticmethod
    async def open(path_or_name: Path) -> Snapshot:
        """A snapshot by name or path. `UnsupportedError` for now.

        Example: `snapshot = await Snapshot.open("base")`
        """

    @staticmethod
    async def get(name_or_digest: str) -> SnapshotHandle:
        """The record of a snapshot. `UnsupportedError` for now.

        Example: `snapshot = await Snapshot.get("base")`
        """

    @staticmethod
    async def list() -> _List[SnapshotHandle]:
        """Every snapshot. `UnsupportedError` for now.

        Example: `snapshots = await Snapshot.list()`
        """

    @staticmethod
    async def list_dir(dir: Path) -> _List[Snapshot]:
        """Snapshots of a directory. `UnsupportedError` for now.

        Example: `snapshots = await Snapshot.list_dir("/srv/snapshots")`
        """

    @staticmethod
    async def remove(path_or_name: Path, *, force: bool = False) -> None:
        """Removes a snapshot. `UnsupportedError` for now.

        Example: `await Snapshot.remove("base", force=True)`
        """

    @staticmethod
    async def reindex(dir: Path | None = None) -> int:
        """Records snapshots found on disk. `UnsupportedError` for now.

        Example: `count = await Snapshot.reindex()`
        """

    @staticmethod
    @spelled_out(SaveKeywords)
    async def save(name_or_path: Path, out: Path, **options: Unpack[SaveKeywords]) -> None:
        """Writes a snapshot to an archive. `UnsupportedError` for now.

        Example: `await Snapshot.save("base", "base.tar.zst", with_image=True)`
        """

    @staticmethod
    @spelled_out(LoadKeywords)
    async def load(archive: Path, **options: Unpack[LoadKeywords]) -> SnapshotHandle:
        """Reads a snapshot from an archive. `UnsupportedError` for now.

        Example: `snapshot = await Snapshot.load("base.tar.zst")`
        """

    @staticmethod
    @spelled_out(LoadKeywords)
    async def load_many(archives: Sequence[Path], **options: Unpack[LoadKeywords]) -> _List[SnapshotHandle]:
        """Reads several. `UnsupportedError` for now.

        Example: `snapshots = await Snapshot.load_many(["base.tar.zst", "delta.tar.zst"])`
        """

    @staticmethod
    async def group_head(selector: str) -> dict[str, str | bool | None]:
        """The head of a group. `UnsupportedError` for now.

        Example: `head = await Snapshot.group_head("nightly")`
        """

    @property
    def id(self) -> str:
        """Its identity."""

    @property
    def reference(self) -> str:
        """What it is found by: an id or a path."""

    @property
    def reference_kind(self) -> str:
        """`id` or `path`."""

    @property
    def path(self) -> str:
        """Where it is on this machine; the older spelling of `reference`."""
        _deprecation.warn("Snapshot.path", "Snapshot.reference")
        raise unsupported("Snapshot.path", SNAPSHOTS)

    @property
    def digest(self) -> str:
        """`sha256:…` of its descriptor."""

    @property
    def size_bytes(self) -> int | None:
        """Its disk, bytes."""

    @property
    def image_ref(self) -> str:
        """The image that its sandbox was made from."""

    @property
    def image_manifest_digest(self) -> str:
        """`sha256:…` of that image's manifest."""

    @property
    def state_kind(self) -> SnapshotStateKind:
        """Files only, or memory too."""

    @property
    def format(self) -> SnapshotFormat | None:
        """Of its disk."""

    @property
    def fstype(self) -> str | None:
        """Of its disk."""

    @property
    def checkpoint_id(self) -> str | None:
        """Of the memory."""

    @property
    def checkpoint_manifest_digest(self) -> str | None:
        """Of the memory."""

    @property
    def parent(self) -> str | None:
        """The snapshot below it."""

    @property
    def scope(self) -> SnapshotScope:
        """Disk, or everything."""

    @property
    def created_at(self) -> str:
        """RFC 3339."""

    @property
    def labels(self) -> dict[str, str]:
        """Labels of the snapshot."""

    @property
    def source_sandbox(self) -> str | None:
        """The sandbox that it was made from."""

    @property
    def head_update(self) -> dict[str, Any] | None:
        """What became of its group's head."""

    async def verify(self) -> dict[str, Any]:
        """Compares its disk with the digest it was made with. `UnsupportedError` for now.

        Example: `print((await snapshot.verify())["upper"]["kind"])`
        """

    @spelled_out(SaveKeywords)
    async def save_to(self, out: Path, **options: Unpack[SaveKeywords]) -> None:
        """Writes it to an archive. `UnsupportedError` for now.

        Example: `await snapshot.save_to("base.tar.zst", with_image=True)`
        """

    def copy_to(self, output_archive_path: Path) -> SnapshotCopyBuilder:
        """A copy elsewhere. `UnsupportedError` for now.

        Example: `await snapshot.copy_to("/srv/base").labels({"team": "data"}).save()`
        """

    async def storage_usage(self) -> StorageItemUsage:
        """Its disk space. `UnsupportedError` for now.

        Example: `print((await snapshot.storage_usage()).allocated_bytes)`
        """


@refused(SNAPSHOTS)
class SnapshotCopyBuilder:
    """A copy in the making, from `Snapshot.copy_to`. `UnsupportedError` for now.

    Example: `await snapshot.copy_to("/srv/base").record_integrity(True).save()`
    """

    def labels(self, labels: Mapping[str, str]) -> SnapshotCopyBuilder:
        """Labels of the copy.

        Example: `builder = snapshot.copy_to("/srv/base").labels({"team": "data"})`
        """

    def record_integrity(self, enabled: bool) -> SnapshotCopyBuilder:
        """Whether the copy keeps a digest of its disk.

        Example: `builder = snapshot.copy_to("/srv/base").record_integrity(True)`
        """

    async def save(self) -> Snapshot:
        """Makes the copy.

        Example: `copy = await snapshot.copy_to("/srv/base").save()`
        """


@refused(SNAPSHOTS)
class SnapshotHandle:
    """The record of a snapshot. None exists until snapshots land.

    Example: `snapshot = await Snapshot.get("base")`
    """

    @property
    def name(self) -> str | None:
        """Its name."""

    @property
    def digest(self) -> str:
        """`sha256:…` of its descriptor."""

    @property
    def parent_digest(self) -> str | None:
        """Of the snapshot below it."""

    @property
    def scope(self) -> SnapshotScope:
        """Disk, or everything."""

    @property
    def image_ref(self) -> str:
        """The image that its sandbox was made from."""

    @property
    def state_kind(self) -> SnapshotStateKind:
        """Files only, or memory too."""

    @property
    def format(self) -> SnapshotFormat | None:
        """Of its disk."""

    @property
    def fstype(self) -> str | None:
        """Of its disk."""

    @property
    def checkpoint_manifest_digest(self) -> str | None:
        """Of the memory."""

    @property
    def size_bytes(self) -> int | None:
        """Its disk, bytes."""

    @property
    def locality(self) -> str:
        """Where it is."""

    @property
    def availability(self) -> str:
        """Whether it can be used now."""

    @property
    def migration_state(self) -> str:
        """Of an artifact of an older version."""

    @property
    def migration_error_code(self) -> str | None:
        """Why that failed."""

    @property
    def created_at(self) -> float:
        """Milliseconds since the epoch."""

    @property
    def path(self) -> str:
        """Where it is on this machine."""

    @property
    def id(self) -> str:
        """Its identity."""

    @property
    def group(self) -> str | None:
        """The group that it belongs to."""

    @property
    def reference(self) -> str:
        """What it is found by: an id or a path."""

    @property
    def reference_kind(self) -> str:
        """`id` or `path`."""

    @property
    def head_update(self) -> dict[str, Any] | None:
        """What became of its group's head."""

    async def open(self) -> Snapshot:
        """The snapshot itself. `UnsupportedError` for now.

        Example: `snapshot = await record.open()`
        """

    async def remove(self, *, force: bool = False) -> None:
        """Removes it. `UnsupportedError` for now.

        Example: `await record.remove(force=True)`
        """

    @spelled_out(SaveKeywords)
    async def save_to(self, out: Path, **options: Unpack[SaveKeywords]) -> None:
        """Writes it to an archive. `UnsupportedError` for now.

        Example: `await record.save_to("base.tar.zst")`
        """

    async def storage_usage(self) -> StorageItemUsage:
        """Its disk space. `UnsupportedError` for now.

        Example: `print((await record.storage_usage()).allocated_bytes)`
        """


mark_eager(Snapshot.create)
