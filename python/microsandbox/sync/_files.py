# Generated from _files.py by python/tools/generate_sync.py: change that, not this.
"""Guest files."""
from __future__ import annotations
from typing import TYPE_CHECKING
from .._runtime import wait as run
if TYPE_CHECKING:
    from .._config import Path
    from .._microsandbox import FsEntry, FsMetadata, NativeFs, NativeReadStream, NativeWriteSink
_List = list

class SandboxFsOps:
    """Files of a running sandbox, from `Sandbox.fs`. Paths are absolute guest paths.

    Every method raises `FilesystemError` (`PathNotFoundError` for a missing path) when the guest refuses, and
    `SandboxNotRunningError` after the stop.
    """

    def __init__(self, native: NativeFs) -> None:
        self._native = native

    def read(self, path: str) -> bytes:
        """The whole file.

        Example: `data = sb.fs.read("/etc/hostname")`.
        """
        return run(self._native.read(path))

    def read_text(self, path: str) -> str:
        """The whole file as UTF-8; `UnicodeDecodeError` for anything else."""
        data = run(self._native.read(path))
        return data.decode('utf-8')

    def write(self, path: str, data: bytes) -> None:
        """Creates or truncates the file and writes `data`."""
        run(self._native.write(path, data))

    def write_text(self, path: str, text: str) -> None:
        """Writes `text` as UTF-8."""
        run(self._native.write(path, text.encode('utf-8')))

    def read_stream(self, path: str) -> FsReadStream:
        """The file chunk by chunk.

        Example: `for chunk in sb.fs.read_stream("/data"): ...`
        """
        return FsReadStream(run(self._native.read_stream(path)))

    def write_stream(self, path: str) -> FsWriteSink:
        """A sink that writes the file chunk by chunk.

        Example: `with sb.fs.write_stream("/data") as sink: sink.write(chunk)`
        """
        return FsWriteSink(run(self._native.write_stream(path)))

    def list(self, path: str) -> _List[FsEntry]:
        """Entries of a directory, one level."""
        return run(self._native.list(path))

    def stat(self, path: str) -> FsMetadata:
        """Kind, size, mode and times."""
        return run(self._native.stat(path))

    def exists(self, path: str) -> bool:
        """Whether the path is there; never raises for absence."""
        return run(self._native.exists(path))

    def mkdir(self, path: str) -> None:
        """Makes a directory and its parents; an existing one is fine."""
        run(self._native.mkdir(path))

    def remove(self, path: str) -> None:
        """Removes a file."""
        run(self._native.remove(path))

    def remove_dir(self, path: str) -> None:
        """Removes a directory with everything in it."""
        run(self._native.remove_dir(path))

    def copy(self, src: str, dst: str) -> None:
        """Copies inside the guest; an existing file at `dst` is replaced."""
        run(self._native.copy(src, dst))

    def rename(self, src: str, dst: str) -> None:
        """Renames inside the guest; an existing file at `dst` is replaced."""
        run(self._native.rename(src, dst))

    def copy_from_host(self, host_path: Path, guest_path: str) -> None:
        """Copies one host file into the guest. Trouble on the host side is `IoError`."""
        run(self._native.copy_from_host(host_path, guest_path))

    def copy_to_host(self, guest_path: str, host_path: Path) -> None:
        """Copies one guest file to the host. Trouble on the host side is `IoError`."""
        run(self._native.copy_to_host(guest_path, host_path))

class FsReadStream:
    """A guest file being read: an iterator of non-empty `bytes`."""

    def __init__(self, native: NativeReadStream) -> None:
        self._native = native

    def __iter__(self) -> FsReadStream:
        return self

    def __next__(self) -> bytes:
        chunk = run(self._native.next())
        if chunk is None:
            raise StopIteration
        return chunk

    def collect(self) -> bytes:
        """Everything that was not read yet."""
        return run(self._native.collect())

class FsWriteSink:
    """A guest file being written; complete once `close` has returned.

    `with` closes it. When its block ends with an exception, the file is given up: what was there before stays.

    Example:
        >>> with box.fs.write_stream("/data/big") as sink:
        ...     sink.write(first)
    """

    def __init__(self, native: NativeWriteSink) -> None:
        self._native = native

    def write(self, data: bytes) -> None:
        """Appends `data`; waits while the guest is slower."""
        run(self._native.write(data))

    def close(self) -> None:
        """Completes the file."""
        run(self._native.close())

    def __enter__(self) -> FsWriteSink:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close() if exc[0] is None else run(self._native.abandon())
