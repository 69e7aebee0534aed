"""Guest files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._runtime import run

if TYPE_CHECKING:
    from ._config import Path
    from ._microsandbox import FsEntry, FsMetadata, NativeFs, NativeReadStream, NativeWriteSink

#: `SandboxFsOps.list` hides the builtin inside the class.
_List = list


class SandboxFsOps:
    """Files of a running sandbox, from `Sandbox.fs`. Paths are absolute guest paths.

    Every method raises `FilesystemError` (`PathNotFoundError` for a missing path) when the guest refuses, and
    `SandboxNotRunningError` after the stop.
    """

    def __init__(self, native: NativeFs) -> None:
        self._native = native

    async def read(self, path: str) -> bytes:
        """The whole file.

        Example: `data = await sb.fs.read("/etc/hostname")`.
        """
        return await run(self._native.read(path))

    async def read_text(self, path: str) -> str:
        """The whole file as UTF-8; `UnicodeDecodeError` for anything else."""
        data = await run(self._native.read(path))
        return data.decode("utf-8")

    async def write(self, path: str, data: bytes) -> None:
        """Creates or truncates the file and writes `data`."""
        await run(self._native.write(path, data))

    async def write_text(self, path: str, text: str) -> None:
        """Writes `text` as UTF-8."""
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
        """Entries of a directory, one level."""
        return await run(self._native.list(path))

    async def stat(self, path: str) -> FsMetadata:
        """Kind, size, mode and times."""
        return await run(self._native.stat(path))

    async def exists(self, path: str) -> bool:
        """Whether the path is there; never raises for absence."""
        return await run(self._native.exists(path))

    async def mkdir(self, path: str) -> None:
        """Makes a directory and its parents; an existing one is fine."""
        await run(self._native.mkdir(path))

    async def remove(self, path: str) -> None:
        """Removes a file."""
        await run(self._native.remove(path))

    async def remove_dir(self, path: str) -> None:
        """Removes a directory with everything in it."""
        await run(self._native.remove_dir(path))

    async def copy(self, src: str, dst: str) -> None:
        """Copies inside the guest; an existing file at `dst` is replaced."""
        await run(self._native.copy(src, dst))

    async def rename(self, src: str, dst: str) -> None:
        """Renames inside the guest; an existing file at `dst` is replaced."""
        await run(self._native.rename(src, dst))

    async def copy_from_host(self, host_path: Path, guest_path: str) -> None:
        """Copies one host file into the guest. Trouble on the host side is `IoError`."""
        await run(self._native.copy_from_host(host_path, guest_path))

    async def copy_to_host(self, guest_path: str, host_path: Path) -> None:
        """Copies one guest file to the host. Trouble on the host side is `IoError`."""
        await run(self._native.copy_to_host(guest_path, host_path))


class FsReadStream:
    """A guest file being read: an async iterator of non-empty `bytes`."""

    def __init__(self, native: NativeReadStream) -> None:
        self._native = native

    def __aiter__(self) -> FsReadStream:
        return self

    async def __anext__(self) -> bytes:
        chunk = await run(self._native.next())
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def collect(self) -> bytes:
        """Everything that was not read yet."""
        return await run(self._native.collect())


class FsWriteSink:
    """A guest file being written; complete once `close` has returned.

    `async with` closes it. When its block ends with an exception, the file is given up: what was there before stays.

    Example:
        >>> async with await box.fs.write_stream("/data/big") as sink:
        ...     await sink.write(first)
    """

    def __init__(self, native: NativeWriteSink) -> None:
        self._native = native

    async def write(self, data: bytes) -> None:
        """Appends `data`; waits while the guest is slower."""
        await run(self._native.write(data))

    async def close(self) -> None:
        """Completes the file."""
        await run(self._native.close())

    async def __aenter__(self) -> FsWriteSink:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await (self.close() if exc[0] is None else run(self._native.abandon()))
