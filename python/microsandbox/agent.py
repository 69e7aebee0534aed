"""The raw protocol of the agent, frame by frame: see `AgentClient`."""

from __future__ import annotations

from typing import TypedDict

from ._agent import AgentClient, AgentStream

__all__ = ["FLAG_SESSION_START", "FLAG_SHUTDOWN", "FLAG_TERMINAL", "AgentClient", "AgentStream", "RawFrame"]

#: The last frame of its session.
FLAG_TERMINAL = 1
#: The first frame of a session.
FLAG_SESSION_START = 2
#: Asks the agent to end.
FLAG_SHUTDOWN = 4


class RawFrame(TypedDict):
    """One frame; `body` is CBOR.

    Example: `frame = await client.request(FLAG_SESSION_START, body); print(frame["id"], frame["flags"])`
    """

    id: int
    flags: int
    body: bytes
