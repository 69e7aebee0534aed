"""The agent's protocol, frame by frame (surface section 19)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from microsandbox import (
    AgentLostError,
    InvalidConfigError,
    LocalBackend,
    Sandbox,
    SandboxNotRunningError,
    UnsupportedError,
)
from microsandbox.agent import FLAG_SESSION_START, FLAG_TERMINAL, AgentClient
from microsandbox.sync import AgentClient as BlockingClient
from microsandbox.sync import Sandbox as BlockingSandbox
from microsandbox.testing import MemoryBackend
from pace import within
from wire import cbor, uncbor


def body(kind: str, payload: object) -> bytes:
    return cbor({"v": 7, "t": kind, "p": cbor(payload)})


def opened(frame: object) -> tuple[str, dict]:
    envelope = uncbor(frame["body"])  # type: ignore[index]
    return envelope["t"], uncbor(envelope["p"])


EXEC = {"cmd": "sh", "args": ["-c", "cat; echo done >&2; exit 4"], "env": []}


async def test_frames_go_and_come(home: Path) -> None:
    backend = LocalBackend(home=home, isolation="container")
    box = await Sandbox.create("raw", image="host", backend=backend)
    async with await AgentClient.connect_sandbox("raw", backend=backend) as client:
        assert uncbor(client.ready_bytes())["t"] == "core.ready"
        pong = await client.request(0, body("core.ping", {}))
        assert opened(pong)[0] == "core.pong" and pong["flags"] & FLAG_TERMINAL and pong["id"] > 0
        stream = await client.stream(FLAG_SESSION_START, body("core.exec.request", EXEC))
        assert opened(await stream.next())[0] == "core.exec.started"
        await client.send(stream.id, 0, body("core.exec.stdin", {"data": b"echoed"}))
        await client.send(stream.id, 0, body("core.exec.stdin", {"data": b""}))
        said: dict[str, bytes] = {}
        async for frame in stream:
            kind, payload = opened(frame)
            said[kind] = said.get(kind, b"") + payload.get("data", b"")
        assert said["core.exec.stdout"] == b"echoed" and said["core.exec.stderr"] == b"done\n"
        assert kind == "core.exec.exited" and payload["code"] == 4
        assert await stream.next() is None
        # Others go on while one waits.
        late = await client.stream(0, body("core.exec.request", {"cmd": "sleep", "args": ["1000"], "env": []}))
        waiting = asyncio.ensure_future(asyncio.wait_for(client.request(0, body("core.ping", {})), within(5)))
        assert opened(await waiting)[0] == "core.pong"
        await late.close()
        await late.close()
    with pytest.raises(AgentLostError):
        await client.request(0, body("core.ping", {}))
    await client.close()
    path = AgentClient.socket_path("raw", backend=backend)
    other = await AgentClient.connect(path, timeout=5)
    stream = await other.stream(0, body("core.exec.request", {"cmd": "sleep", "args": ["1000"], "env": []}))
    await stream.next()
    await box.stop()
    # Nothing is lost on the way out: the program's end is reported before the connection's.
    assert [opened(frame)[0] async for frame in stream][-1] == "core.exec.exited"
    with pytest.raises(AgentLostError):
        await other.request(0, body("core.ping", {}))
    with pytest.raises(SandboxNotRunningError):
        await AgentClient.connect(path)
    with pytest.raises(SandboxNotRunningError):
        await AgentClient.connect_sandbox("raw", backend=backend)
    await Sandbox.remove("raw", backend=backend)


async def test_bad_arguments_are_refused(home: Path) -> None:
    backend = LocalBackend(home=home, isolation="container")
    assert AgentClient.socket_path("nobody", backend=backend).startswith(str(home))
    for timeout in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="timeout"):
            await AgentClient.connect_sandbox("nobody", timeout=timeout, backend=backend)
    with pytest.raises(UnsupportedError):
        await AgentClient.connect_sandbox("nobody", backend=MemoryBackend())


def test_the_blocking_face_has_it_too(home: Path) -> None:
    backend = LocalBackend(home=home, isolation="container")
    box = BlockingSandbox.create("raw", image="host", backend=backend)
    with BlockingClient.connect_sandbox("raw", backend=backend) as client:
        assert opened(client.request(0, body("core.ping", {})))[0] == "core.pong"
        with pytest.raises(InvalidConfigError, match="body"):
            client.request(0, b"")
    box.stop()
    BlockingSandbox.remove("raw", backend=backend)
