"""Running programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._runtime import run

if TYPE_CHECKING:
    from ._microsandbox import ExecEvent, ExecOutput, NativeExec, NativeSink


class ExecHandle:
    """A running program: an iterator of `ExecEvent`, ended by EXITED or FAILED.

    `signal`, `kill` and `resize` work while another task waits for events. Dropping the last reference before the end
    kills the program.

    Example: `async for event in await sb.exec_stream("make"): print(event.event_type, event.data)`
    """

    def __init__(self, native: NativeExec) -> None:
        self._native = native

    @property
    def id(self) -> str:
        """Unique among the live runs of its sandbox."""
        return self._native.id

    def take_stdin(self) -> ExecSink | None:
        """The input side: once, and only with `stdin=Stdin.pipe()`.

        Example: `process = await sb.exec_stream("cat", stdin=Stdin.pipe()); stdin = process.take_stdin()`
        """
        sink = self._native.take_stdin()
        return None if sink is None else ExecSink(sink)

    async def recv(self) -> ExecEvent | None:
        """The next event; None after the last.

        Example: `event = await process.recv()`
        """
        return await run(self._native.recv())

    async def wait(self) -> tuple[int, bool]:
        """Waits for the end, dropping output: exit status (or 128 + signal), and whether it is 0.

        Example: `code, success = await process.wait()`
        """
        return await run(self._native.wait())

    async def collect(self) -> ExecOutput:
        """Waits for the end and keeps the output that was not read yet. `OutputLimitError` above 64 MiB.

        Example: `output = await process.collect()`
        """
        return await run(self._native.collect())

    async def signal(self, sig: int) -> None:
        """Sends signal `sig` to the program's process group; 9 kills its whole tree.

        Example: `await process.signal(signal.SIGTERM)`
        """
        await run(self._native.signal(sig))

    async def kill(self) -> None:
        """SIGKILL to the whole tree.

        Example: `await process.kill()`
        """
        await run(self._native.kill())

    async def resize(self, rows: int, cols: int) -> None:
        """Tells a program with `tty=True` the size of its terminal.

        Example: `await process.resize(40, 120)`
        """
        await run(self._native.resize(rows, cols))

    def __aiter__(self) -> ExecHandle:
        return self

    async def __anext__(self) -> ExecEvent:
        event = await run(self._native.recv())
        if event is None:
            raise StopAsyncIteration
        return event


class ExecSink:
    """Standard input of a running program.

    Example: `await sink.write(b"6 * 7\\n"); await sink.close()`
    """

    def __init__(self, native: NativeSink) -> None:
        self._native = native

    async def write(self, data: bytes) -> None:
        """Sends `data`; waits while the program does not read. `IoError` once it has closed its end.

        Example: `await sink.write(b"a line\\n")`
        """
        await run(self._native.write(data))

    async def close(self) -> None:
        """End of file for a pipe; a terminal stays open.

        Example: `await sink.close()`
        """
        await run(self._native.close())
