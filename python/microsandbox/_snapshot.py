"""Snapshots: the names of the surface. Every operation raises `UnsupportedError` until snapshots land."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from . import _deprecation
from ._unsupported import SNAPSHOTS, unsupported

if TYPE_CHECKING:
    from ._config import Path
    from ._enums import GuestFlush


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
    async def create(
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
    ) -> NoReturn:
        """Saves a sandbox's disk. `UnsupportedError` for now.

        Example: `snapshot = await Snapshot.create("base", from_sandbox="box")`
        """
        if resumable:
            _deprecation.warn("Snapshot.create(resumable=)", "full=", depth=0)
        raise unsupported("Snapshot.create", SNAPSHOTS)

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
    ) -> NoReturn:
        """Saves a sandbox's disk to an archive. `UnsupportedError` for now.

        Example: `archive = await Snapshot.create_archive("base", "base.tar.zst", from_sandbox="box")`
        """
        raise unsupported("Snapshot.create_archive", SNAPSHOTS)

    @staticmethod
    async def open(path_or_name: Path) -> NoReturn:
        """A snapshot by name or path. `UnsupportedError` for now.

        Example: `snapshot = await Snapshot.open("base")`
        """
        raise unsupported("Snapshot.open", SNAPSHOTS)

    @staticmethod
    async def get(name_or_digest: str) -> NoReturn:
        """The record of a snapshot. `UnsupportedError` for now.

        Example: `snapshot = await Snapshot.get("base")`
        """
        raise unsupported("Snapshot.get", SNAPSHOTS)

    @staticmethod
    async def list() -> NoReturn:
        """Every snapshot. `UnsupportedError` for now.

        Example: `snapshots = await Snapshot.list()`
        """
        raise unsupported("Snapshot.list", SNAPSHOTS)

    @staticmethod
    async def list_dir(dir: Path) -> NoReturn:
        """Snapshots of a directory. `UnsupportedError` for now.

        Example: `snapshots = await Snapshot.list_dir("/srv/snapshots")`
        """
        raise unsupported("Snapshot.list_dir", SNAPSHOTS)

    @staticmethod
    async def remove(path_or_name: Path, *, force: bool = False) -> NoReturn:
        """Removes a snapshot. `UnsupportedError` for now.

        Example: `await Snapshot.remove("base", force=True)`
        """
        raise unsupported("Snapshot.remove", SNAPSHOTS)

    @staticmethod
    async def reindex(dir: Path | None = None) -> NoReturn:
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
    ) -> NoReturn:
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
    ) -> NoReturn:
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
    ) -> NoReturn:
        """Reads several. `UnsupportedError` for now.

        Example: `snapshots = await Snapshot.load_many(["base.tar.zst", "delta.tar.zst"])`
        """
        raise unsupported("Snapshot.load_many", SNAPSHOTS)

    @staticmethod
    async def group_head(selector: str) -> NoReturn:
        """The head of a group. `UnsupportedError` for now.

        Example: `head = await Snapshot.group_head("nightly")`
        """
        raise unsupported("Snapshot.group_head", SNAPSHOTS)


class SnapshotHandle:
    """The record of a snapshot. None exists until snapshots land.

    Example: `snapshot = await Snapshot.get("base")`
    """

    def __init__(self) -> None:
        raise unsupported("SnapshotHandle", SNAPSHOTS)
