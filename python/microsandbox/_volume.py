"""Named volumes, and the mounts of a sandbox."""

from __future__ import annotations

import os
from collections.abc import Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import _backend, _microsandbox
from ._checks import Path
from ._enums import DiskImageFormat, MountKind, NamedVolumeMode, VolumeKind
from ._files import FsListStream, FsReadStream, FsWriteSink
from ._mount import FlagKeywords, MountConfig, MountKeywords, policies
from ._runtime import make, mark_eager, require_loop, run
from ._signature import spelled_out

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._microsandbox import FsEntry, FsMetadata, NativeVolume, NativeVolumeFs

#: `VolumeFs.list` hides the builtin inside the class.
_List = list


class VolumeFs:
    """Files of a volume, from `Volume.fs` or `VolumeHandle.fs`, without a sandbox. Paths are relative to its root.

    Every method raises `FilesystemError` (`PathNotFoundError` for a missing path; kind `PathEscapes` for `..` above the
    root and links out of it) and `VolumeNotFoundError`. Nothing but regular files is read.

    Example: `await volume.fs.write("notes.txt", b"kept")`
    """

    def __init__(self, native: NativeVolumeFs) -> None:
        self._native = native

    async def read(self, path: str, *, max_bytes: int | None = None) -> bytes:
        """The whole file. A file of more than `max_bytes` (64 MiB) is a `FilesystemError` of kind `LimitExceeded`.

        Example: `data = await volume.fs.read("results/a.json")`.
        """
        return await run(self._native.read(path, max_bytes))

    async def read_text(self, path: str, *, max_bytes: int | None = None) -> str:
        """The whole file as UTF-8; `UnicodeDecodeError` for anything else. Limited as `SandboxFsOps.read_text` is.

        Example: `text = await volume.fs.read_text("notes.txt")`
        """
        return await run(self._native.read_text(path, max_bytes))

    async def write(self, path: str, data: bytes) -> None:
        """Creates or replaces the file atomically: another reader sees the old or the new content.

        Its directory must exist.

        Example: `await volume.fs.write("data.bin", b"\\x00\\x01")`
        """
        await run(self._native.write(path, data))

    async def read_stream(self, path: str) -> FsReadStream:
        """The file chunk by chunk.

        Example: `async for chunk in await volume.fs.read_stream("big"): ...`
        """
        return FsReadStream(await run(self._native.read_stream(path)))

    async def write_stream(self, path: str) -> FsWriteSink:
        """A sink that writes the file chunk by chunk; it is in place once the sink is closed.

        Example: `async with await volume.fs.write_stream("big") as sink: await sink.write(chunk)`
        """
        return FsWriteSink(await run(self._native.write_stream(path)))

    async def list(self, path: str) -> _List[FsEntry]:
        """Entries of a directory, one level, sorted; `""` is the root. Limited as `SandboxFsOps.list` is.

        Example: `print([entry.path for entry in await volume.fs.list("/")])`
        """
        return await run(self._native.list(path))

    async def list_stream(self, path: str) -> FsListStream:
        """Entries of a directory, one level, in the directory's own order, while they are read.

        Example: `async for entry in await volume.fs.list_stream("spool"): print(entry.path)`
        """
        return FsListStream(await run(self._native.list_stream(path)))

    async def mkdir(self, path: str) -> None:
        """Makes a directory and its parents; an existing directory is no error.

        Example: `await volume.fs.mkdir("a/b")`
        """
        await run(self._native.mkdir(path))

    async def remove_file(self, path: str) -> None:
        """Removes a file or a link.

        Example: `await volume.fs.remove_file("notes.txt")`
        """
        await run(self._native.remove_file(path))

    async def remove_dir(self, path: str) -> None:
        """Removes a directory with everything in it.

        Example: `await volume.fs.remove_dir("a")`
        """
        await run(self._native.remove_dir(path))

    async def copy(self, from_: str, to: str) -> None:
        """Copies a file; an existing file at `to` is replaced.

        Example: `await volume.fs.copy("notes.txt", "copy.txt")`
        """
        await run(self._native.copy(from_, to))

    async def rename(self, from_: str, to: str) -> None:
        """Renames a file or directory; an existing file at `to` is replaced.

        Example: `await volume.fs.rename("copy.txt", "old.txt")`
        """
        await run(self._native.rename(from_, to))

    async def stat(self, path: str) -> FsMetadata:
        """Kind, size, mode and times; follows a link within the volume.

        Example: `print((await volume.fs.stat("notes.txt")).size)`
        """
        return await run(self._native.stat(path))

    async def exists(self, path: str) -> bool:
        """Whether the path is there; never raises for absence.

        Example: `print(await volume.fs.exists("notes.txt"))`
        """
        return await run(self._native.exists(path))


class VolumeHandle:
    """The record of a volume as it was when it was read. Bound to the backend it came from.

    Example: `volume = await Volume.get("data"); print(volume.kind, volume.used_bytes)`
    """

    def __init__(self, native: NativeVolume) -> None:
        self._native = native

    @property
    def name(self) -> str:
        """Its name; empty for an account's default volume."""
        return self._native.name

    @property
    def is_default(self) -> bool:
        """Whether it is the account's default volume; never on this machine."""
        return self._native.is_default

    @property
    def kind(self) -> VolumeKind:
        """Directory or disk."""
        return self._native.kind

    @property
    def quota_mib(self) -> int | None:
        """Bound of a directory volume, MiB."""
        return self._native.quota_mib

    @property
    def used_bytes(self) -> int:
        """Bytes of its files; of the first 200,000 entries where there are more."""
        return self._native.used_bytes

    @property
    def capacity_bytes(self) -> int | None:
        """What fits in, where that is bounded."""
        return self._native.capacity_bytes

    @property
    def disk_format(self) -> DiskImageFormat | None:
        """Format of a disk volume."""
        value = self._native.disk_format
        return None if value is None else DiskImageFormat(value)

    @property
    def disk_fstype(self) -> str | None:
        """File system of a disk volume."""
        return self._native.disk_fstype

    @property
    def labels(self) -> Mapping[str, str]:
        """Its labels."""
        return self._native.labels

    @property
    def created_at(self) -> float | None:
        """Creation, milliseconds since the epoch."""
        return self._native.created_at

    @property
    def fs(self) -> VolumeFs:
        """Its files."""
        return VolumeFs(self._native.fs)

    async def remove(self) -> None:
        """Removes it with its files. Raises `VolumeNotFoundError`, `VolumeInUseError`.

        Example: `await volume.remove()`
        """
        await run(self._native.remove())

    def __repr__(self) -> str:
        return f"VolumeHandle({self.name!r})"


class Volume:
    """Storage that outlives sandboxes, and factories of what a sandbox mounts (`MountConfig`).

    Example::

        volume = await Volume.create("data")
        await volume.fs.write("in.txt", b"hello")
        sandbox = await Sandbox.create("job", image="host", volumes={"/data": Volume.named("data", readonly=True)})
    """

    def __init__(self, native: NativeVolume) -> None:
        self._native = native

    @property
    def name(self) -> str:
        """Its name."""
        return self._native.name

    @property
    def path(self) -> str:
        """Its directory on this machine; `UnsupportedError` where the files are elsewhere."""
        return os.fspath(self._native.path())

    @property
    def fs(self) -> VolumeFs:
        """Its files."""
        return VolumeFs(self._native.fs)

    def __repr__(self) -> str:
        return f"Volume({self.name!r})"

    @staticmethod
    def create(
        name: str,
        *,
        kind: VolumeKind = VolumeKind.DIRECTORY,
        size_mib: int | None = None,
        quota_mib: int | None = None,
        labels: Mapping[str, str] | None = None,
        backend: _backend.BackendObject | None = None,
    ) -> Coroutine[Any, Any, Volume]:
        """Makes a volume. A disk needs `size_mib`; `quota_mib` bounds a directory.

        Raises `VolumeAlreadyExistsError`, `InvalidConfigError`.

        Example: `volume = await Volume.create("data", labels={"team": "data"})`
        """
        call = _microsandbox.volume_create(name, kind, size_mib, quota_mib, labels, _backend.pick(backend))
        require_loop()
        return _made(call)

    @staticmethod
    async def get(name: str, *, backend: _backend.BackendObject | None = None) -> VolumeHandle:
        """The record of a volume. Raises `VolumeNotFoundError`.

        Example: `print((await Volume.get("data")).used_bytes)`
        """
        return VolumeHandle(await run(_microsandbox.volume_get(name, _backend.pick(backend))))

    @staticmethod
    async def list(*, backend: _backend.BackendObject | None = None) -> Sequence[VolumeHandle]:
        """Every volume, as a list.

        Example: `print([volume.name for volume in await Volume.list()])`
        """
        natives = await run(_microsandbox.volume_list(_backend.pick(backend)))
        return [VolumeHandle(native) for native in natives]

    @staticmethod
    async def remove(name: str, *, backend: _backend.BackendObject | None = None) -> None:
        """Removes a volume. Raises `VolumeNotFoundError`, `VolumeInUseError`.

        Example: `await Volume.remove("data")`
        """
        await run(_microsandbox.volume_remove(name, _backend.pick(backend)))

    @staticmethod
    async def get_default(*, backend: _backend.BackendObject | None = None) -> VolumeHandle:
        """The account's default volume; cloud only, `UnsupportedError` on this machine.

        Example: `volume = await Volume.get_default()`
        """
        return VolumeHandle(await run(_microsandbox.volume_get_default(_backend.pick(backend))))

    @staticmethod
    @spelled_out(MountKeywords)
    def bind(path: str, **options: Unpack[MountKeywords]) -> MountConfig:
        """A host directory (or file), live both ways. A relative path is taken from the working directory now.

        Root in the guest is the user who runs the sandbox: files that root creates belong to that user on the host.
        With `uid` and `gid` (0 to 65535, only where root runs sandboxes), files of the directory's owner appear in the
        guest as files of that guest user, and new files of that guest user belong to the owner; files of other owners
        appear as files of user `nobody`, and other guest users cannot create files. `readonly` is enforced on the
        host; `host_permissions` says whether set-id bits may be set (default: they may not).

        The path is resolved once, when the sandbox boots. A symbolic link in a directory that a sandbox of this home
        can write to, or could, is not followed out of that directory (`InvalidConfigError`): name the path that is
        meant.
        Nothing is made in the directory: another mount within it needs its place to exist there
        (`InvalidConfigError`), and a part of `image="host"` whose place is missing there is covered.

        With `readonly=True`, a container sees the content of the files and nothing else of them: sockets and FIFOs in
        the directory lead nowhere, file locks and inotify do not reach the host. Content that the host changes in
        place shows at once, a name that it makes, replaces or removes within a second; a name that a program inside
        holds open keeps its old file until it is closed. A writable bind gives the guest the sockets and FIFOs too.

        Example: `sb = await Sandbox.create("box", image="host", volumes={"/src": Volume.bind("./src")})`
        """
        return MountConfig(MountKind.BIND, bind=os.fspath(path), **policies(options))

    @staticmethod
    @spelled_out(MountKeywords)
    def named(
        name: str,
        *,
        mode: NamedVolumeMode | None = None,
        kind: VolumeKind | None = None,
        size_mib: int | None = None,
        quota_mib: int | None = None,
        **options: Unpack[MountKeywords],
    ) -> MountConfig:
        """A named volume; `mode` says what to do about an absent or existing one (it must exist by default).

        Example: `sb = await Sandbox.create("box", image="host", volumes={"/data": Volume.named("data")})`
        """
        return MountConfig(
            MountKind.NAMED,
            named=name,
            named_mode=mode,
            named_kind=kind,
            size_mib=size_mib,
            quota_mib=quota_mib,
            **policies(options),
        )

    @staticmethod
    @spelled_out(FlagKeywords)
    def tmpfs(*, size_mib: int | None = None, **options: Unpack[FlagKeywords]) -> MountConfig:
        """Memory; writes past `size_mib` give ENOSPC in the guest.

        Example: `sb = await Sandbox.create("box", image="host", volumes={"/t": Volume.tmpfs(size_mib=64)})`
        """
        return MountConfig(MountKind.TMPFS, size_mib=size_mib, **options)

    @staticmethod
    @spelled_out(FlagKeywords)
    def disk(
        path: Path,
        *,
        format: DiskImageFormat | None = None,
        fstype: str | None = None,
        **options: Unpack[FlagKeywords],
    ) -> MountConfig:
        """A disk image as a block device; its format is its extension unless given.

        Example: `mount = Volume.disk("data.img", readonly=True)`
        """
        return MountConfig(MountKind.DISK, disk=os.fspath(path), format=format, fstype=fstype, **options)

    @staticmethod
    @spelled_out(MountKeywords)
    def owned(
        *,
        kind: VolumeKind | None = None,
        size_mib: int | None = None,
        quota_mib: int | None = None,
        **options: Unpack[MountKeywords],
    ) -> MountConfig:
        """Private storage that goes with the sandbox.

        Example: `mount = Volume.owned(quota_mib=1024)`
        """
        return MountConfig(
            MountKind.OWNED, owned_kind=kind, size_mib=size_mib, quota_mib=quota_mib, **policies(options)
        )


async def _made(call: _microsandbox.Pending[NativeVolume]) -> Volume:
    return Volume(await make(call))


mark_eager(Volume.create)
