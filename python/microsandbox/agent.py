"""The raw protocol of the agent, as it will be. `UnsupportedError` for now."""

from __future__ import annotations

from typing import NoReturn, TypedDict

from ._unsupported import AGENT, unsupported

__all__ = ["FLAG_SESSION_START", "FLAG_SHUTDOWN", "FLAG_TERMINAL", "AgentClient", "AgentStream", "RawFrame"]

#: The last frame of its session.
FLAG_TERMINAL = 1
#: The first frame of a session.
FLAG_SESSION_START = 2
#: Asks the agent to end.
FLAG_SHUTDOWN = 4


class RawFrame(TypedDict):
    """One frame; `body` is CBOR."""

    id: int
    flags: int
    body: bytes


class AgentClient:
    """A connection to an agent."""

    @classmethod
    async def connect_sandbox(cls, name: str, *, timeout: float | None = None) -> NoReturn:
        """Connects to the agent of a sandbox. `UnsupportedError` for now."""
        _check(timeout)
        raise unsupported("AgentClient.connect_sandbox", AGENT)

    @classmethod
    async def connect(cls, path: str, *, timeout: float | None = None) -> NoReturn:
        """Connects to a socket. `UnsupportedError` for now."""
        _check(timeout)
        raise unsupported("AgentClient.connect", AGENT)

    @staticmethod
    def socket_path(name: str) -> str:
        """Path of a sandbox's agent socket. `UnsupportedError` for now."""
        raise unsupported("AgentClient.socket_path", AGENT)


class AgentStream:
    """Frames of one session. None exists until the raw client lands."""

    def __init__(self) -> None:
        raise unsupported("AgentStream", AGENT)


def _check(timeout: float | None) -> None:
    if timeout is not None and not 0 <= timeout < float("inf"):
        raise ValueError("timeout must be non-negative and finite")
