# Generated from _agent.py by python/tools/generate_sync.py: change that, not this.
"""The raw protocol of the agent."""
from __future__ import annotations
from typing import TYPE_CHECKING
from .. import _backend, _microsandbox
from .._runtime import wait as run
if TYPE_CHECKING:
    import os
    from .._backend import BackendObject
    from .._microsandbox import NativeAgent, NativeAgentStream
    from ..agent import RawFrame

class AgentClient:
    """A connection to the agent of a local sandbox, frame by frame: for tools that speak its protocol themselves.

    A frame has an id, flags (`FLAG_TERMINAL`, `FLAG_SESSION_START`, `FLAG_SHUTDOWN`) and a body: a CBOR map of `v`
    (generation, 7), `t` (kind of message) and `p` (payload, CBOR in a byte string), at most 4 MiB. The bodies are this
    package's own and may change with any version; the framing does not. Closing the connection ends the programs that
    were started over it.

        from microsandbox.agent import AgentClient

        client = AgentClient.connect_sandbox("demo")
        # {"v": 7, "t": "core.ping", "p": b"\\xa0"}
        ping = bytes.fromhex("a3 6176 07 6174 69 636f72652e70696e67 6170 41a0")
        frame = client.request(0, ping)
        client.close()

    Example: `with AgentClient.connect_sandbox("box") as client: print(client.ready_bytes())`
    """

    def __init__(self, native: NativeAgent) -> None:
        self._native = native

    @classmethod
    def connect_sandbox(cls, name: str, *, timeout: float | None=None, backend: BackendObject | None=None) -> AgentClient:
        """Connects to the agent of a running sandbox, within `timeout` seconds (10).

        Raises `SandboxNotRunningError`, `AgentLostError` if it does not answer, `ValueError` for a negative or endless
        timeout, and `UnsupportedError` on a backend that is not on this machine.

        Example: `client = AgentClient.connect_sandbox("box")`
        """
        return cls(run(_microsandbox.agent_of_sandbox(name, timeout, _backend.pick(backend))))

    @classmethod
    def connect(cls, path: str | os.PathLike[str], *, timeout: float | None=None) -> AgentClient:
        """Connects to the socket that `socket_path` names; the errors are those of `connect_sandbox`.

        Example: `client = AgentClient.connect(AgentClient.socket_path("box"))`
        """
        return cls(run(_microsandbox.agent_of_socket(path, timeout)))

    @staticmethod
    def socket_path(name: str, *, backend: BackendObject | None=None) -> str:
        """Where the agent of the sandbox `name` listens while it runs; nothing is connected and it need not exist.

        Example: `path = AgentClient.socket_path("box")`
        """
        return str(_microsandbox.agent_socket_path(name, _backend.pick(backend)))

    def request(self, flags: int, body: bytes) -> RawFrame:
        """Sends a frame under a new id; the first one that answers it. `AgentLostError` if none will come.

        Example: `frame = client.request(FLAG_SESSION_START, body)`
        """
        return run(self._native.request(flags, body))

    def stream(self, flags: int, body: bytes) -> AgentStream:
        """Sends a frame under a new id; the answers are the stream's. One that is not read holds the others back.

        Example: `frames = client.stream(FLAG_SESSION_START, body)`
        """
        return AgentStream(run(self._native.stream_open(flags, body)))

    def send(self, id: int, flags: int, body: bytes) -> None:
        """Sends one more frame under the id of a stream.

        Example: `client.send(frames.id, 0, body)`
        """
        run(self._native.send(id, flags, body))

    def ready_bytes(self) -> bytes:
        """The body of the agent's first frame, `core.ready`: its version and its times.

        Example: `greeting = client.ready_bytes()`
        """
        return self._native.ready_bytes()

    def close(self) -> None:
        """Ends the connection. Again, it does nothing.

        Example: `client.close()`
        """
        run(self._native.close())

    def __enter__(self) -> AgentClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

class AgentStream:
    """The frames of one id: an iterator, ended by the frame with `FLAG_TERMINAL`, and a context manager.

    Example: `for frame in frames: print(frame["flags"])`
    """

    def __init__(self, native: NativeAgentStream) -> None:
        self._native = native

    @property
    def id(self) -> int:
        """What `AgentClient.send` takes for more frames of this call."""
        return self._native.id

    def next(self) -> RawFrame | None:
        """The next frame; None after the terminal one. `AgentLostError` if the connection ends before that.

        Example: `frame = frames.next()`
        """
        return run(self._native.stream_next())

    def close(self) -> None:
        """No more frames are wanted. Again, it does nothing.

        Example: `frames.close()`
        """
        run(self._native.stream_close())

    def __iter__(self) -> AgentStream:
        return self

    def __next__(self) -> RawFrame:
        frame = run(self._native.stream_next())
        if frame is None:
            raise StopIteration
        return frame

    def __enter__(self) -> AgentStream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
