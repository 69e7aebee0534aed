"""P: hostile clients of the agent's socket, and a hostile agent in front of the SDK."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from boxes import init_pid, runtime_pid
from microsandbox import MicrosandboxError
from wire import SESSION_START, TERMINAL, Peer, cbor, frame

Make = Callable[..., Awaitable[Any]]


def socket_path(home: Path) -> Path:
    return home / "sandboxes" / "box" / "runtime" / "agent.sock"


def token(home: Path) -> bytes:
    raw = (home / "sandboxes" / "box" / "runtime" / "token").read_bytes()
    return bytes.fromhex(raw.decode()) if len(raw) == 64 else raw


def resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    return 0


async def alive(box: Any) -> None:
    assert (await asyncio.wait_for(box.exec("echo", ["alive"]), 20)).stdout_text == "alive\n"


async def test_the_socket_and_the_token_are_the_owners_only(make: Make, home: Path) -> None:
    await make()
    assert home.stat().st_mode & 0o077 == 0
    assert (home / "sandboxes" / "box" / "runtime" / "token").stat().st_mode & 0o077 == 0


async def test_an_honest_client_of_our_own_is_served(make: Make, home: Path) -> None:
    """The second implementation is right: otherwise the refusals below would prove nothing."""
    await make()
    with Peer.connect(socket_path(home)) as peer:
        low, high = peer.hello(token(home))
        assert low < high
        request = {"cmd": "echo", "args": ["hi"], "no_stdin": True}
        peer.send(frame("core.exec.request", request, number=low + 1, flags=SESSION_START))
        kinds, said = [], b""
        while True:
            number, flags, kind, payload = peer.receive()
            assert number == low + 1
            kinds.append(kind)
            said += payload.get("data", b"") if kind == "core.exec.stdout" else b""
            if flags & TERMINAL:
                break
        assert kinds[0] == "core.exec.started" and kinds[-1] == "core.exec.exited"
        assert said == b"hi\n"


@pytest.mark.parametrize("shown", [b"", b"wrong", b"\0" * 32, None])
async def test_without_the_token_nothing_is_served(make: Make, home: Path, shown: bytes | None) -> None:
    box = await make()
    right = token(home)
    guess = right[:-1] + bytes([right[-1] ^ 1]) if shown is None else shown
    with Peer.connect(socket_path(home)) as peer:
        peer.send(frame("core.hello", {"token": guess, "extension_min": 1, "extension_max": 1}))
        with contextlib.suppress(BrokenPipeError):  # it may have hung up already
            peer.send(
                frame("core.exec.request", {"cmd": "touch", "args": ["/tmp/was-here"]}, number=1, flags=SESSION_START)
            )
        assert peer.ends()
    assert not await box.fs.exists("/tmp/was-here")
    await alive(box)


async def test_requests_before_the_hello_are_refused(make: Make, home: Path) -> None:
    box = await make()
    with Peer.connect(socket_path(home)) as peer:
        peer.send(
            frame("core.exec.request", {"cmd": "touch", "args": ["/tmp/was-here"]}, number=1, flags=SESSION_START)
        )
        assert peer.ends()
    assert not await box.fs.exists("/tmp/was-here")


LENGTHS = [0, 1, 4, 4097, (4 << 20) + 1, 0x7FFFFFFF, 0xFFFFFFFF]


@pytest.mark.hazard("P1")
@pytest.mark.parametrize("length", LENGTHS)
async def test_lengths_are_checked_before_anything_is_allocated(make: Make, home: Path, length: int) -> None:
    box = await make()
    before = resident(init_pid(home))
    with Peer.connect(socket_path(home)) as peer:
        peer.send(struct.pack(">I", length) + b"\0" * 64)
        assert peer.ends()
    assert resident(init_pid(home)) - before < 4 << 20
    await alive(box)


@pytest.mark.hazard("P1")
@pytest.mark.parametrize("length", [0, 4, (4 << 20) + 1, 0xFFFFFFFF])
async def test_lengths_are_checked_after_the_hello_as_well(make: Make, home: Path, length: int) -> None:
    box = await make()
    with Peer.connect(socket_path(home)) as peer:
        peer.hello(token(home))
        peer.send(struct.pack(">I", length) + b"\0" * 64)
        assert peer.ends()
    await alive(box)


@pytest.mark.hazard("P2")
async def test_half_a_frame_and_the_end_close_the_connection(make: Make, home: Path) -> None:
    box = await make()
    whole = frame("core.exec.request", {"cmd": "true"}, number=1, flags=SESSION_START)
    for cut in (1, 3, 4, 8, 9, len(whole) - 1):
        with Peer.connect(socket_path(home)) as peer:
            peer.hello(token(home))
            peer.send(whole[:cut])
    await alive(box)


GARBAGE = {
    "noise": os.urandom(200),
    "deep arrays": b"\x81" * 10_000 + b"\x00",
    "deep maps": b"\xa1\x00" * 10_000 + b"\x00",
    "array of 2^32": b"\x9a\xff\xff\xff\xff",
    "bytes of 2^63": b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff",
    "indefinite string": b"\x7f" + b"\x61a" * 1000,
    "not a number": b"\xf9\x7e\x00",
    "duplicate keys": b"\xa3" + cbor("v") + b"\x07" + cbor("v") + b"\x07" + cbor("t") + cbor("core.ping"),
    "wrong types": cbor({"v": "seven", "t": 7, "p": []}),
    "generation 0": cbor({"v": 0, "t": "core.ping", "p": b""}),
    "empty": b"\xa0",
}


@pytest.mark.hazard("P3")
@pytest.mark.parametrize("what", list(GARBAGE))
async def test_garbage_bodies_end_the_connection_only(make: Make, home: Path, what: str) -> None:
    box = await make()
    before = resident(init_pid(home))
    body = GARBAGE[what]
    with Peer.connect(socket_path(home)) as peer:
        peer.hello(token(home))
        peer.send(struct.pack(">IIB", len(body) + 5, 1, SESSION_START) + body)
        peer.connection.settimeout(3)
        peer.ends()
    assert resident(init_pid(home)) - before < 8 << 20
    await alive(box)


@pytest.mark.hazard("P4")
async def test_unknown_kinds_and_flags_do_not_end_the_connection(make: Make, home: Path) -> None:
    await make()
    with Peer.connect(socket_path(home)) as peer:
        low, _ = peer.hello(token(home))
        peer.send(frame("core.of.the.future", {"x": 1}, number=low + 1, flags=SESSION_START))
        peer.send(frame("core.ping", {}, number=low + 2, flags=SESSION_START | 0x80))
        for _ in range(5):
            number, _, kind, _ = peer.receive()
            if number == low + 2:
                assert kind == "core.pong"
                return
        pytest.fail("no pong")


@pytest.mark.hazard("P4")
async def test_a_newer_client_is_refused_with_the_versions(make: Make, home: Path) -> None:
    await make()
    with Peer.connect(socket_path(home)) as peer:
        peer.send(frame("core.hello", {"token": token(home), "extension_min": 900, "extension_max": 901}))
        peer.read(8)
        _, _, kind, payload = peer.receive()
        assert kind == "core.error" and payload["kind"] == "version"
        assert "900" in payload["message"] and "1" in payload["message"]


@pytest.mark.hazard("P7")
async def test_a_client_cannot_send_what_only_the_runtime_may(make: Make, home: Path) -> None:
    box = await make(env={"A": "1"})
    bootstrap = {
        "token": b"mine", "env": ["A=evil"], "cwd": "/", "user": "root", "rlimits": [],
        "shutdown_grace_ms": 0, "drain_ms": 0, "max_clients": 1,
    }  # fmt: skip
    for kind, payload in (
        ("core.bootstrap", bootstrap),
        ("host.log", {"source": 1, "time_ns": 0, "data": b"forged\n"}),
        ("host.activity", {"seq": 1, "running": 0}),
    ):
        with Peer.connect(socket_path(home)) as peer:
            low, _ = peer.hello(token(home))
            peer.send(frame(kind, payload, number=low + 1, flags=SESSION_START))
            peer.connection.settimeout(2)
            peer.ends()
    assert (await box.exec("printenv", ["A"])).stdout_text == "1\n"
    assert "forged" not in "".join(entry.text() for entry in await box.logs())


@pytest.mark.hazard("P5")
async def test_one_client_cannot_touch_the_sessions_of_another(make: Make, home: Path) -> None:
    box = await make()
    with Peer.connect(socket_path(home)) as victim, Peer.connect(socket_path(home)) as attacker:
        low, _ = victim.hello(token(home))
        other, _ = attacker.hello(token(home))
        assert low != other
        victim.send(frame("core.exec.request", {"cmd": "sleep", "args": ["600"]}, number=low + 1, flags=SESSION_START))
        assert victim.receive()[2] == "core.exec.started"
        attacker.send(frame("core.exec.signal", {"signal": 9}, number=low + 1))
        attacker.send(frame("core.exec.stdin", {"data": b"x"}, number=low + 1))
        attacker.connection.settimeout(2)
        attacker.ends()
        assert (await box.shell("pgrep -fx 'sleep 600' | wc -l")).stdout_text == "1\n"
        victim.send(frame("core.exec.signal", {"signal": 9}, number=low + 1))
        while victim.receive()[2] != "core.exec.exited":
            pass


@pytest.mark.hazard("P8")
async def test_a_byte_a_second_delays_no_other_client(make: Make, home: Path) -> None:
    box = await make()
    hello = frame("core.hello", {"token": token(home), "extension_min": 1, "extension_max": 1})
    with Peer.connect(socket_path(home)) as slow:
        for byte in hello[:3]:
            slow.send(bytes([byte]))
            began = time.monotonic()
            await alive(box)
            assert time.monotonic() - began < 2


async def test_many_connections_are_bounded_and_released(make: Make, home: Path) -> None:
    box = await make()
    peers = []
    try:
        for _ in range(300):
            try:
                peers.append(Peer.connect(socket_path(home)))
            except OSError:
                break
    finally:
        for peer in peers:
            peer.connection.close()
    deadline = time.monotonic() + 15
    while True:
        try:
            await alive(box)
            break
        except MicrosandboxError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
    assert resident(init_pid(home)) < 32 << 20 and resident(runtime_pid(home)) < 32 << 20


class FakeAgent:
    """Sits on the agent's socket in place of the agent and answers as a test wants."""

    def __init__(self, path: Path, behave: Callable[[Peer], None]) -> None:
        path.unlink()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(64)
        self.behave = behave
        self.peers: list[Peer] = []
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            peer = Peer(connection)
            self.peers.append(peer)
            threading.Thread(target=self.one, args=(peer,), daemon=True).start()

    def one(self, peer: Peer) -> None:
        with contextlib.suppress(EOFError, OSError, TimeoutError):
            self.behave(peer)

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for peer in self.peers:
            peer.connection.close()
        self.thread.join(5)


@pytest.fixture
def fake(home: Path) -> Iterator[Callable[[Callable[[Peer], None]], FakeAgent]]:
    agents: list[FakeAgent] = []

    def start(behave: Callable[[Peer], None]) -> FakeAgent:
        agents.append(FakeAgent(socket_path(home), behave))
        return agents[-1]

    yield start
    for agent in agents:
        agent.close()


READY = {"boot_time_ns": 0, "init_time_ns": 0, "ready_time_ns": 0, "extension": 1}


def greet(peer: Peer) -> tuple[int, int]:
    """Answers the hello and gives the id and kind of the first request."""
    assert peer.receive()[2] == "core.hello"
    peer.send(struct.pack(">II", 1000, 2000) + frame("core.ready", READY))
    number, _, _, _ = peer.receive()
    return number, 0


Fake = Callable[[Callable[[Peer], None]], FakeAgent]


async def refused(box: Any, within: float = 40) -> MicrosandboxError:
    began = time.monotonic()
    with pytest.raises(MicrosandboxError) as caught:
        await asyncio.wait_for(box.exec("true"), within)
    assert time.monotonic() - began < within
    assert not isinstance(caught.value, asyncio.TimeoutError) or "exec" in str(caught.value)
    return caught.value


@pytest.mark.hazard("P1")
@pytest.mark.parametrize("length", [0, 1, 4, (4 << 20) + 1, 0xFFFFFFFF])
async def test_the_client_checks_the_agents_lengths(make: Make, fake: Fake, length: int) -> None:
    box = await make()

    def behave(peer: Peer) -> None:
        greet(peer)
        peer.send(struct.pack(">I", length) + b"\0" * 100)

    fake(behave)
    before = resident(os.getpid())
    await refused(box)
    assert resident(os.getpid()) - before < 64 << 20


@pytest.mark.hazard("P3")
@pytest.mark.parametrize("what", list(GARBAGE))
async def test_the_client_survives_garbage_from_the_agent(make: Make, fake: Fake, what: str) -> None:
    box = await make()
    body = GARBAGE[what]

    def behave(peer: Peer) -> None:
        number, _ = greet(peer)
        peer.send(struct.pack(">IIB", len(body) + 5, number, 0) + body)
        peer.connection.close()

    fake(behave)
    await refused(box)


@pytest.mark.hazard("P2")
async def test_an_agent_that_ends_in_mid_frame_is_lost(make: Make, fake: Fake) -> None:
    box = await make()

    def behave(peer: Peer) -> None:
        number, _ = greet(peer)
        peer.send(frame("core.exec.started", {"pid": 5}, number=number)[:-3])
        peer.connection.close()

    fake(behave)
    await refused(box)


@pytest.mark.hazard("X6")
async def test_a_silent_agent_is_lost_within_the_deadline(make: Make, fake: Fake) -> None:
    """Hello answered, then nothing for ever."""
    box = await make()

    def behave(peer: Peer) -> None:
        greet(peer)
        peer.ends()

    fake(behave)
    error = await refused(box, 45)
    assert type(error).__name__ in ("AgentLostError", "ProtocolError", "SandboxNotRunningError"), repr(error)


@pytest.mark.hazard("P5")
async def test_frames_of_other_sessions_are_not_delivered(make: Make, fake: Fake) -> None:
    box = await make()

    def behave(peer: Peer) -> None:
        number, _ = greet(peer)
        peer.send(frame("core.exec.started", {"pid": 5}, number=number))
        for stranger in (0, number + 1, number - 1, 0xFFFFFFFF):
            peer.send(frame("core.exec.stdout", {"data": b"not yours\n"}, number=stranger))
            peer.send(frame("core.exec.exited", {"code": 99}, number=stranger, flags=TERMINAL))
        peer.send(frame("core.exec.stdout", {"data": b"yours\n"}, number=number))
        peer.send(frame("core.exec.exited", {"code": 0}, number=number, flags=TERMINAL))
        peer.send(frame("core.exec.exited", {"code": 7}, number=number, flags=TERMINAL))
        peer.send(frame("core.exec.stdout", {"data": b"too late\n"}, number=number))
        time.sleep(0.2)

    fake(behave)
    try:
        output = await asyncio.wait_for(box.exec("true"), 30)
    except MicrosandboxError:
        return  # refusing such a peer altogether is right, too
    assert output.stdout_text == "yours\n"
    assert output.exit_code == 0


@pytest.mark.hazard("P6")
async def test_an_id_is_never_reused_so_late_replies_are_dropped(make: Make, fake: Fake) -> None:
    """Calls share a connection until its range of ids is used up; then there is another connection."""
    box = await make()
    seen: list[list[int]] = []

    def behave(peer: Peer) -> None:
        assert peer.receive()[2] == "core.hello"
        peer.send(struct.pack(">II", 10, 60) + frame("core.ready", READY))
        mine: list[int] = []
        seen.append(mine)
        while True:
            number, _, kind, _ = peer.receive()
            if kind != "core.exec.request":
                continue
            for earlier in mine:
                peer.send(frame("core.exec.exited", {"code": 99}, number=earlier, flags=TERMINAL))
            mine.append(number)
            peer.send(frame("core.exec.started", {"pid": 5}, number=number))
            peer.send(frame("core.exec.exited", {"code": 0}, number=number, flags=TERMINAL))

    fake(behave)
    for _ in range(100):
        assert (await asyncio.wait_for(box.exec("true"), 30)).exit_code == 0
    assert sum(map(len, seen)) == 100
    assert any(len(mine) > 1 for mine in seen), "no call ever shared a connection"
    for mine in seen:
        assert sorted(set(mine)) == mine and 10 <= mine[0] <= mine[-1] < 60


CLAIMS = [
    {"code": 2**31 - 1, "signal": 10**6, "duration_ns": 2**64 - 1, "descendants": 2**32 - 1},
    {"code": -(2**31), "signal": -5},
    {"code": 0, "oom_killed": True, "timed_out": True, "drained": False},
]


@pytest.mark.hazard("P12")
@pytest.mark.parametrize("claim", CLAIMS)
async def test_false_claims_are_values_not_actions(make: Make, fake: Fake, claim: dict[str, Any]) -> None:
    box = await make()

    def behave(peer: Peer) -> None:
        number, _ = greet(peer)
        peer.send(frame("core.exec.started", {"pid": 2**32 - 1}, number=number))
        peer.send(frame("core.exec.exited", claim, number=number, flags=TERMINAL))
        time.sleep(0.2)

    fake(behave)
    try:
        output = await asyncio.wait_for(box.exec("true"), 30)
    except MicrosandboxError:
        return
    assert isinstance(output.exit_code, int)
    assert output.duration >= 0


@pytest.mark.hazard("F10")
@pytest.mark.parametrize(("declared", "sent"), [(10, 3), (3, 10), (0, 5), (2**40, 1)])
async def test_other_bytes_than_declared_are_no_success(make: Make, fake: Fake, declared: int, sent: int) -> None:
    box = await make()

    def behave(peer: Peer) -> None:
        number, _ = greet(peer)
        stat = {"path": "/tmp/x", "kind": "file", "size": declared, "mode": 0o100644}
        peer.send(frame("core.fs.data", {"data": b"x" * sent}, number=number))
        response = {"ok": True, "data": {"Stat": stat}, "bytes": declared}
        peer.send(frame("core.fs.response", response, number=number, flags=TERMINAL))
        time.sleep(0.2)

    fake(behave)
    with pytest.raises(MicrosandboxError):
        await asyncio.wait_for(box.fs.read("/tmp/x"), 30)
