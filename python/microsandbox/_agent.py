"""The raw protocol of the agent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _backend, _checks, _microsandbox
from ._runtime import run

if TYPE_CHECKING:
    import os

    from ._backend import BackendObject
    from ._microsandbox import NativeAgent, NativeAgentStream
    from .agent import RawFrame


def _byte(flags: int) -> int:
    return _checks.bounded("flags", flags, 0, 255)


class AgentClient:
    """A connection to the agent of a local sandbox, frame by frame: for tools that speak its protocol themselves.

    A frame has an id, flags (`FLAG_TERMINAL`, `FLAG_SESSION_START`, `FLAG_SHUTDOWN`) and a body: a CBOR map of `v`
    (generation, 7), `t` (kind of message) and `p` (payload, CBOR in a byte string), at most 4 MiB. The bodies are this
    package's own and may change with any version; the framing does not. Closing the connection ends the programs that
    were started over it.

        from microsandbox.agent import AgentClient

        client = await AgentClient.connect_sandbox("demo")
        # {"v": 7, "t": "core.ping", "p": b"\\xa0"}
        ping = bytes.fromhex("a3 6176 07 6174 69 636f72652e70696e67 6170 41a0")
        frame = await client.request(0, ping)
        await client.close()

    Example: `async with await AgentClient.connect_sandbox("box") as client: print(client.ready_bytes())`
    """

    def __init__(self, native: NativeAgent) -> None:
        self._native = native

    @classmethod
    async def connect_sandbox(
        cls, name: str, *, timeout: float | None = None, backend: BackendObject | None = None
    ) -> AgentClient:
        """Connects to the agent of a running sandbox, within `timeout` seconds (10).

        Raises `SandboxNotRunningError`, `AgentLostError` if it does not answer, `ValueError` for a negative or endless
        timeout, and `UnsupportedError` on a backend that is not on this machine.

        Example: `client = await AgentClient.connect_sandbox("box")`
        """
        return cls(await run(_microsandbox.agent_of_sandbox(name, timeout, _backend.pick(backend))))

    @classmethod
    async def connect(cls, path: str | os.PathLike[str], *, timeout: float | None = None) -> AgentClient:
        """Connects to the socket that `socket_path` names; the errors are those of `connect_sandbox`.

        Example: `client = await AgentClient.connect(AgentClient.socket_path("box"))`
        """
        return cls(await run(_microsandbox.agent_of_socket(path, timeout)))

    @staticmethod
    def socket_path(name: str, *, backend: BackendObject | None = None) -> str:
        """Where the agent of the sandbox `name` listens while it runs; nothing is connected and it need not exist.

        Example: `path = AgentClient.socket_path("box")`
        """
        return str(_microsandbox.agent_socket_path(name, _backend.pick(backend)))

    async def request(self, flags: int, body: bytes) -> RawFrame:
        """Sends a frame under a new id; the first one that answers it. `AgentLostError` if none will come.

        Example: `frame = await client.request(FLAG_SESSION_START, body)`
        """
        return await run(self._native.request(_byte(flags), body))

    async def stream(self, flags: int, body: bytes) -> AgentStream:
        """Sends a frame under a new id; the answers are the stream's. One that is not read holds the others back.

        Example: `frames = await client.stream(FLAG_SESSION_START, body)`
        """
        return AgentStream(await run(self._native.stream_open(_byte(flags), body)))

    async def send(self, id: int, flags: int, body: bytes) -> None:
        """Sends one more frame under the id of a stream.

        Example: `await client.send(frames.id, 0, body)`
        """
        await run(self._native.send(_checks.bounded("id", id, 0, 2**32 - 1), _byte(flags), body))

    def ready_bytes(self) -> bytes:
        """The body of the agent's first frame, `core.ready`: its version and its times.

        Example: `greeting = client.ready_bytes()`
        """
        return self._native.ready_bytes()

    async def close(self) -> None:
        """Ends the connection. Again, it does nothing.

        Example: `await client.close()`
        """
        await run(self._native.close())

    async def __aenter__(self) -> AgentClient:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


class AgentStream:
    """The frames of one id: an iterator, ended by the frame with `FLAG_TERMINAL`, and a context manager.

    Example: `async for frame in frames: print(frame["flags"])`
    """

    def __init__(self, native: NativeAgentStream) -> None:
        self._native = native

    @property
    def id(self) -> int:
        """What `AgentClient.send` takes for more frames of this call."""
        return self._native.id

    async def next(self) -> RawFrame | None:
        """The next frame; None after the terminal one. `AgentLostError` if the connection ends before that.

        Example: `frame = await frames.next()`
        """
        return await run(self._native.stream_next())

    async def close(self) -> None:
        """No more frames are wanted. Again, it does nothing.

        Example: `await frames.close()`
        """
        await run(self._native.stream_close())

    def __aiter__(self) -> AgentStream:
        return self

    async def __anext__(self) -> RawFrame:
        frame = await run(self._native.stream_next())
        if frame is None:
            raise StopAsyncIteration
        return frame

    async def __aenter__(self) -> AgentStream:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()
