"""Guest files."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from . import _checks, _glob, _progress
from ._runtime import on_loop, run
from .errors import FilesystemError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._checks import Path
    from ._microsandbox import (
        FsEntry,
        FsEvent,
        FsMetadata,
        NativeFs,
        NativeListStream,
        NativeReadStream,
        NativeWatch,
        NativeWriteSink,
    )

    _Progress = Callable[[int, int | None], None]

#: -1 means "keep" to the kernel, so it is no id.
_MAX_ID = 2**32 - 2

#: `SandboxFsOps.list` hides the builtin inside the class.
_List = list


class SandboxFsOps:
    """Files of a running sandbox, from `Sandbox.fs`. Paths are absolute guest paths.

    A name that is not UTF-8 is passed in and out as `os.fsdecode` writes it, with lone surrogates (PEP 383):
    `await sb.fs.read(os.fsdecode(b"/tmp/caf\\xe9"))`.

    Every method raises `FilesystemError` (`PathNotFoundError` for a missing path) when the guest refuses, and
    `SandboxNotRunningError` after the stop.

    Example: `await sb.fs.write_text("/tmp/in", "1 2 3"); print(await sb.fs.list("/tmp"))`
    """

    def __init__(self, native: NativeFs) -> None:
        self._native = native

    async def read(self, path: str, *, max_bytes: int | None = None) -> bytes:
        """The whole file. A file of more than `max_bytes` (64 MiB) is a `FilesystemError` of kind `LimitExceeded`.

        How large the file is, the guest decides: a sparse file costs it nothing. `read_stream` has no such limit.

        Example: `data = await sb.fs.read("/etc/hostname")`.
        """
        return await run(self._native.read(path, max_bytes))

    async def read_text(self, path: str, *, max_bytes: int | None = None) -> str:
        """The whole file as UTF-8; `UnicodeDecodeError` for anything else.

        A file of more than `max_bytes` is a `FilesystemError` of kind `LimitExceeded`. Without that keyword, so is a
        text that takes more than 64 MiB of memory while it is decoded: 32 MiB of ASCII, 10 MiB with emoji.

        Example: `text = await sb.fs.read_text("/etc/hostname")`
        """
        return await run(self._native.read_text(path, max_bytes))

    async def write(self, path: str, data: bytes) -> None:
        """Creates the file, or replaces it atomically.

        A file that is mounted there, or whose directory is read-only, is written in place, as programs write it, and
        keeps its owner and mode. That is not atomic: a failure in the middle leaves a part of the new content.

        Example: `await sb.fs.write("/data.bin", b"\\x00" * 1024)`
        """
        await run(self._native.write(path, data))

    async def write_text(self, path: str, text: str) -> None:
        """Writes `text` as UTF-8.

        Example: `await sb.fs.write_text("/etc/motd", "Welcome.\\n")`
        """
        await run(self._native.write(path, text.encode("utf-8")))

    async def read_stream(self, path: str) -> FsReadStream:
        """The file chunk by chunk.

        Example: `async for chunk in await sb.fs.read_stream("/data"): ...`
        """
        return FsReadStream(await run(self._native.read_stream(path)))

    async def write_stream(self, path: str) -> FsWriteSink:
        """A sink that writes the file chunk by chunk.

        Example: `async with await sb.fs.write_stream("/data") as sink: await sink.write(chunk)`
        """
        return FsWriteSink(await run(self._native.write_stream(path)))

    async def list(self, path: str) -> _List[FsEntry]:
        """Entries of a directory, one level, sorted by path.

        More entries than fit into 64 MiB of memory (about 250,000) are a `FilesystemError` of kind `LimitExceeded`; use
        `list_stream` for them.

        Example: `print([entry.path for entry in await sb.fs.list("/etc")])`
        """
        return await run(self._native.list(path))

    async def list_stream(self, path: str) -> FsListStream:
        """Entries of a directory, one level, in the directory's own order, while they are read.

        Example: `async for entry in await sb.fs.list_stream("/var/spool"): print(entry.path)`
        """
        return FsListStream(await run(self._native.list_stream(path)))

    async def stat(self, path: str, *, follow_symlinks: bool = True) -> FsMetadata:
        """Kind, size, mode, owner and times; of a link itself with `follow_symlinks=False`.

        Example: `print((await sb.fs.stat("/etc/passwd")).size)`
        """
        return await run(self._native.stat(path, follow_symlinks))

    async def chmod(self, path: str, mode: int) -> None:
        """Sets the permission bits, setuid, setgid and sticky: 0 to 0o7777. Follows links.

        Example: `await sb.fs.chmod("/usr/local/bin/tool", 0o755)`
        """
        await self._set(path, mode=_checks.bounded("mode", mode, 0, 0o7777))

    async def chown(
        self, path: str, uid: int | None = None, gid: int | None = None, *, follow_symlinks: bool = True
    ) -> None:
        """Sets owner and group, as numbers; what is None stays. An id that the sandbox does not map is refused.

        Example: `await sb.fs.chown("/srv/data", uid=1000, gid=1000)`
        """
        uid = None if uid is None else _checks.bounded("uid", uid, 0, _MAX_ID)
        gid = None if gid is None else _checks.bounded("gid", gid, 0, _MAX_ID)
        await self._set(path, uid=uid, gid=gid, of_link=not follow_symlinks)

    async def utime(
        self,
        path: str,
        *,
        accessed: float | None = None,
        modified: float | None = None,
        follow_symlinks: bool = True,
    ) -> None:
        """Sets times, in milliseconds since the epoch; whole seconds are kept, what is None stays.

        Example: `await sb.fs.utime("/srv/data", modified=1.7e12)`
        """
        times = {"accessed": accessed, "modified": modified}
        seconds = {
            name: None
            if time is None
            else _checks.bounded(name, int(_checks.number(name, time) // 1000), -(2**63), 2**63 - 1)
            for name, time in times.items()
        }
        await self._set(path, **seconds, of_link=not follow_symlinks)

    async def truncate(self, path: str, size: int) -> None:
        """Cuts a file to `size` bytes, or fills it up with zeros.

        Example: `await sb.fs.truncate("/var/log/app.log", 0)`
        """
        await self._set(path, size=_checks.bounded("size", size, 0, 2**63 - 1))

    async def _set(self, path: str, *, of_link: bool = False, **given: int | None) -> None:
        names = ("mode", "uid", "gid", "size", "accessed", "modified")
        await run(self._native.set(path, {**dict.fromkeys(names), **given, "of_link": of_link}))

    async def symlink(self, target: str, link: str) -> None:
        """Makes a symbolic link at `link`. `target` is kept as it is: it need not exist, and may be relative.

        Example: `await sb.fs.symlink("releases/7", "/srv/current")`
        """
        await run(self._native.symlink(target, link))

    async def readlink(self, path: str) -> str:
        """What a symbolic link says; `FilesystemError` for anything else.

        Example: `print(await sb.fs.readlink("/srv/current"))`
        """
        return await run(self._native.readlink(path))

    async def realpath(self, path: str) -> str:
        """The path of an existing file without links, `.` and `..`.

        Example: `print(await sb.fs.realpath("/srv/current/../current"))`
        """
        return await run(self._native.realpath(path))

    async def glob(self, pattern: str) -> _List[FsEntry]:
        """Entries whose path matches an absolute `pattern`, sorted: `*`, `?`, `[...]` in a name, `**` for any depth.

        As in the `glob` module, a name that begins with a dot must be asked for with a dot. Links to directories are
        not entered. No match is an empty list. `ValueError` for a relative pattern. Matches, with the directories that
        are still to be searched, that take more than 64 MiB of memory are a `FilesystemError` of kind `LimitExceeded`.

        Example: `for entry in await sb.fs.glob("/src/**/*.py"): print(entry.path)`
        """
        found = {}
        top, wanted = _glob.split(pattern)
        todo = [(top, wanted)]
        held = 0
        while todo:
            directory, rests = todo.pop()
            held -= _glob.weight(directory)
            entries = await self._list_if_there(directory)
            if entries is None:
                continue
            async for entry in entries:
                is_match, below = _glob.step(entry.path, rests)
                if is_match:
                    found[entry.path] = entry
                    held += _glob.weight(entry.path)
                if below and entry.kind == "directory":
                    todo.append((entry.path, below))
                    held += _glob.weight(entry.path)
                if held > _glob.MAX_BYTES:
                    raise _glob.too_many(pattern)
        return [found[path] for path in sorted(found)]

    async def _list_if_there(self, directory: str) -> FsListStream | None:
        try:
            return await self.list_stream(directory)
        except FilesystemError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise
            return None

    async def exists(self, path: str) -> bool:
        """Whether the path is there; never raises for absence.

        Example: `print(await sb.fs.exists("/etc/passwd"))`
        """
        return await run(self._native.exists(path))

    async def mkdir(self, path: str) -> None:
        """Makes a directory and its parents; an existing directory is no error.

        Example: `await sb.fs.mkdir("/srv/data/new")`
        """
        await run(self._native.mkdir(path))

    async def remove(self, path: str) -> None:
        """Removes a file.

        Example: `await sb.fs.remove("/tmp/file")`
        """
        await run(self._native.remove(path))

    async def remove_dir(self, path: str) -> None:
        """Removes a directory with everything in it.

        Example: `await sb.fs.remove_dir("/tmp/tree")`
        """
        await run(self._native.remove_dir(path))

    async def copy(self, src: str, dst: str) -> None:
        """Copies a file or a tree inside the guest; an existing file at `dst` is replaced, a directory is merged into.

        Owners, modes, times, links, names of one file, holes and attributes of users are kept. Sockets and devices are
        left out, which is an error of kind `NotRegularFile` once everything else was copied.

        Example: `await sb.fs.copy("/etc/hosts", "/tmp/hosts")`
        """
        await run(self._native.copy(src, dst))

    async def rename(self, src: str, dst: str) -> None:
        """Renames inside the guest; an existing file at `dst` is replaced.

        A directory of the image, and a path on another file system, are copied completely beside `dst`, put in place
        in one step, and removed at `src`, as `mv` does. A failure before that leaves everything as it was; so does a
        change of `src` during the copy (`ESTALE`). What a program writes there while it is removed is lost.

        Example: `await sb.fs.rename("/tmp/new", "/srv/data")`
        """
        await run(self._native.rename(src, dst))

    async def copy_from_host(self, host_path: Path, guest_path: str, *, progress: _Progress | None = None) -> None:
        """Copies one host file into the guest, with its permission bits and time.

        `progress(done, total)` is called with bytes as they arrive; without one, a bar is shown in a notebook or a
        terminal once it takes longer than a second (`MSB_PROGRESS=0`: never). Long runs of zeros become holes. Trouble
        on the host side is `IoError`.

        Example: `await sb.fs.copy_from_host("data.csv", "/tmp/data.csv")`
        """
        with _progress.bar(f"copying to {guest_path!r}", progress) as callback:
            await run(self._native.copy_from_host(host_path, guest_path, on_loop(callback)))

    async def copy_to_host(self, guest_path: str, host_path: Path, *, progress: _Progress | None = None) -> None:
        """Copies one guest file to the host, with its time and the permission bits that the umask leaves.

        `progress(done, total)` is called with bytes as they are written; without one, a bar is shown in a notebook or a
        terminal once it takes longer than a second (`MSB_PROGRESS=0`: never). Long runs of zeros become holes. Trouble
        on the host side is `IoError`. A symbolic link at `host_path`, and one that leads out of a directory to which a
        sandbox can write, is not followed: `FilesystemError` of kind `PathEscapes`.

        Example: `await sb.fs.copy_to_host("/tmp/result.json", "result.json")`
        """
        with _progress.bar(f"copying {guest_path!r}", progress) as callback:
            await run(self._native.copy_to_host(guest_path, host_path, on_loop(callback)))

    async def read_tar(self, path: str) -> FsReadStream:
        """What is in a directory as a tar archive, made while it is read.

        Names in it are relative to `path`; files, directories, links and holes are in it with owners, modes and times.
        A second name of a file is a hard link. Sockets, fifos and devices are left out; comments in the archive name
        them. The format is that of GNU tar. It comes from the guest: open it as any archive of a stranger (`tarfile`
        with `filter="data"`). A tree deeper than 256 directories is refused (kind `LimitExceeded`): archive its parts.

        Example:
            >>> with open("src.tar", "wb") as file:
            ...     async for chunk in await sb.fs.read_tar("/src"):
            ...         file.write(chunk)
        """
        return FsReadStream(await run(self._native.read_tar(path)))

    async def write_tar(self, path: str) -> FsWriteSink:
        """A sink that unpacks a tar archive, not compressed, below the directory `path`, which is made if missing.

        v7, ustar, pax and GNU archives are read, sparse files in all their forms; another form is an error that names
        it. Files replace what stands in their place, directories are merged. An entry that leads out of the directory,
        also through a link, or a device, is an error of `write` or `close`; what was unpacked before stays. Owners that
        the sandbox does not map become root; attributes of users are kept, others are not.

        Example:
            >>> async with await sb.fs.write_tar("/src") as sink:
            ...     await sink.write(Path("src.tar").read_bytes())
        """
        return FsWriteSink(await run(self._native.write_tar(path)))

    async def watch(self, path: str, *, recursive: bool = False) -> FsWatch:
        """Changes of a file, or in a directory, from now on; with `recursive` also in all directories below.

        It ends when what is watched is gone or the sandbox ends. At most 4096 directories are watched; changes that
        were not kept are reported as `FsEventKind.OVERFLOW`. In a new directory, a change may be reported twice.
        The source is inotify(7): changes that a host makes in a shared directory are not seen in a virtual machine.

        Example:
            >>> async with await sb.fs.watch("/src", recursive=True) as changes:
            ...     async for change in changes:
            ...         print(change.kind, change.path)
        """
        return FsWatch(await run(self._native.watch(path, recursive)))


class FsWatch:
    """Changes of guest files, from `SandboxFsOps.watch`: an iterator of `FsEvent`.

    Example: `async for change in watch: print(change.kind, change.path)`
    """

    def __init__(self, native: NativeWatch) -> None:
        self._native = native

    def __aiter__(self) -> FsWatch:
        return self

    async def __anext__(self) -> FsEvent:
        event = await run(self._native.next())
        if event is None:
            raise StopAsyncIteration
        return event

    async def close(self) -> None:
        """Closes the watch, also for a task that waits for the next change. Idempotent.

        Example: `await watch.close()`
        """
        self._native.close()

    async def __aenter__(self) -> FsWatch:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._native.close()


class FsListStream:
    """A directory being listed, from `SandboxFsOps.list_stream`: an iterator of `FsEntry`. One page is in memory.

    Example: `names = {entry.path async for entry in await sb.fs.list_stream("/var/spool")}`
    """

    def __init__(self, native: NativeListStream) -> None:
        self._native = native
        self._page: _List[FsEntry] = []

    def __aiter__(self) -> FsListStream:
        return self

    async def __anext__(self) -> FsEntry:
        while not self._page:
            page = await run(self._native.next())
            if page is None:
                raise StopAsyncIteration
            self._page = page[::-1]
        return self._page.pop()


class FsReadStream:
    """A guest file being read: an iterator of non-empty `bytes`.

    Example: `print(sum([len(chunk) async for chunk in await sb.fs.read_stream("/data")]))`
    """

    def __init__(self, native: NativeReadStream) -> None:
        self._native = native

    def __aiter__(self) -> FsReadStream:
        return self

    async def __anext__(self) -> bytes:
        chunk = await run(self._native.next())
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def collect(self, *, max_bytes: int | None = None) -> bytes:
        """Everything that was not read yet; `FilesystemError` of kind `LimitExceeded` above `max_bytes` (64 MiB).

        Example: `data = await reader.collect()`
        """
        return await run(self._native.collect(max_bytes))


class FsWriteSink:
    """A guest file being written; complete once `close` has returned.

    Leaving the block of the context manager closes the file. When the block ends with an exception, the write is
    abandoned: what was there before stays.

    Example:
        >>> async with await sb.fs.write_stream("/data/big") as sink:
        ...     await sink.write(chunk)
    """

    def __init__(self, native: NativeWriteSink) -> None:
        self._native = native

    async def write(self, data: bytes) -> None:
        """Appends `data`; waits while the guest is slower.

        Example: `await writer.write(b"more")`
        """
        await run(self._native.write(data))

    async def close(self) -> None:
        """Completes the file.

        Example: `await writer.close()`
        """
        await run(self._native.close())

    async def __aenter__(self) -> FsWriteSink:
        return self

    async def __aexit__(self, *exc: object) -> None:
        if exc[0] is None:
            await self.close()
        else:
            await run(self._native.abandon())
