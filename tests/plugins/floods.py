"""A hostile agent that answers every request with as much as it can: endless streams, lists of the smallest elements, one byte of content in
the largest frames, texts of megabytes.

It runs in the process of the test; the caller whose memory is measured is another one.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wire import TERMINAL, Peer, cbor, frame

READY = {"boot_time_ns": 0, "init_time_ns": 0, "ready_time_ns": 0, "extension": 1}
LONG = 3 << 20
# Less than what is read, listed or collected as a whole.
WHOLE = 63 << 20
TEXT = "x" * LONG
# Inside a frame, beside the content.
PADDING = bytes(LONG)


def body(kind: str, payload: Any) -> bytes:
    """A frame less its length, number and flags."""
    return cbor({"v": 7, "t": kind, "p": cbor(payload)})


def many(count: int, element: Any) -> bytes:
    """A list, encoded once."""
    return b"\x9a" + struct.pack(">I", count) + cbor(element) * count


def entry(path: str, kind: str) -> dict[str, Any]:
    return {"path": path, "kind": kind, "size": 2**63, "mode": 0o100644, "uid": 0, "gid": 0}


def response(**fields: Any) -> bytes:
    return body("core.fs.response", {"ok": True, **fields})


def listing(entries: bytes) -> bytes:
    """A response with these entries, which are encoded already."""
    payload = b"\xa2" + cbor("ok") + cbor(True) + cbor("data") + b"\xa1" + cbor("List") + entries
    return cbor({"v": 7, "t": "core.fs.response", "p": payload})


def chunk(kind: str, size: int, padded: bool) -> bytes:
    payload = {"data": b"x" * size}
    return body(kind, {**payload, "of a newer version": PADDING} if padded else payload)


STRAY = body("core.exec.stdout", {"data": PADDING})
REFUSAL = body("core.fs.response", {"ok": False, "error": TEXT, "kind": "y" * 100, "errno": 5})
ERROR = body("core.error", {"kind": "z" * 100, "message": TEXT, "offending_type": "t" * 500_000})
STATS = dict.fromkeys(
    [
        "cpu_ns",
        "memory_bytes",
        "memory_available_bytes",
        "processes",
        "disk_read_bytes",
        "disk_write_bytes",
        "net_rx_bytes",
        "net_tx_bytes",
        "uptime_ms",
    ],
    2**32 - 1,
)
SMALLEST = {"path": "/", "kind": "", "size": 0, "mode": 0}
PAGES = {
    "plenty": [listing(many(1000, entry("/" + "d" * 4000, "dir")))],
    "padded": [listing(many(1000, SMALLEST)), listing(many(150_000, SMALLEST))],
}
JOB = {"id": "j", "boot": "b", "session": 1, "tty": False, "pid": 1, "stdin_closed": False, "started_ms": 1}
EVENT = {"kind": "created", "path": "/" + "w" * 4000}


def job_responses() -> dict[str, bytes]:
    plenty = {"jobs": [{**JOB, "command": [TEXT], "exit": {"code": 0}}]}
    words = b"\xa8" + b"".join(cbor(name) + cbor(value) for name, value in JOB.items())
    words += cbor("command") + many(3_000_000, "")
    padded = b"\xa1" + cbor("jobs") + b"\x81" + words
    return {
        "plenty": body("core.job.response", plenty),
        "padded": cbor({"v": 7, "t": "core.job.response", "p": padded}),
    }


JOBS = job_responses()


class Flood:
    """What the agent does on each connection. `style`: `plenty` sends large content, `padded` small content in large frames, `whole`
    just as much as a call takes.
    """

    def __init__(self, style: str, path: Path) -> None:
        self.style = style
        self.pages = 0
        self.peers: list[Peer] = []
        path.unlink()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(64)
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
        # A client that waits holds this side back as well.
        peer.connection.settimeout(60)
        with contextlib.suppress(EOFError, OSError):
            assert peer.receive()[2] == "core.hello"
            peer.send(struct.pack(">II", 1000, 2**31) + frame("core.ready", READY))
            while True:
                number, _, kind, payload = peer.receive()
                for flags, said in self.answers(kind, payload):
                    peer.send(struct.pack(">IIB", len(said) + 5, number, flags) + said)
        peer.connection.close()

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for peer in self.peers:
            with contextlib.suppress(OSError):
                peer.connection.shutdown(socket.SHUT_RDWR)
        self.thread.join(5)

    def answers(self, kind: str, payload: Any) -> Iterator[tuple[int, bytes]]:
        padded = self.style == "padded"
        pad = {"of a newer version": PADDING} if padded else {}
        if kind in ("core.exec.request", "core.job.attach"):
            if payload.get("job") is True:
                yield 0, body("core.exec.started", {"pid": 5, "job": "j", **pad})
                return
            yield 0, body("core.exec.started", {"pid": 5, **pad})
            yield from self.endless("core.exec.stdout", "core.exec.stderr", "core.exec.stdin.error", "core.credit")
        elif kind == "core.fs.request":
            yield from self.files(payload["op"])
        elif kind == "core.job.request":
            # Else no job would be known to ask more about.
            yield TERMINAL, JOBS["plenty" if "Inspect" in payload["op"] else self.style]
        elif kind == "core.ping":
            yield TERMINAL, body("core.pong", pad)
        elif kind == "core.touch":
            yield TERMINAL, body("core.touched", {"activity_seq": 2**64 - 1, **pad})
        elif kind == "core.stats.request":
            yield TERMINAL, body("core.stats.response", {**STATS, **pad})
        elif kind in ("core.exec.stdin", "core.exec.signal", "core.credit", "core.fs.data"):
            return
        else:
            yield TERMINAL, ERROR

    def whole(self, *kinds: str) -> Iterator[tuple[int, bytes]]:
        """As much as is not too much, and then the end."""
        for number in range(WHOLE // LONG):
            yield 0, chunk(kinds[number % len(kinds)], LONG, False)
        if kinds[0] == "core.fs.data":
            yield TERMINAL, response(bytes=WHOLE // LONG * LONG)
        else:
            yield TERMINAL, body("core.exec.exited", {"code": 0})

    def endless(self, *kinds: str) -> Iterator[tuple[int, bytes]]:
        if self.style == "whole":
            yield from self.whole(*kinds[:2])
            return
        padded = self.style == "padded"
        size = 1 if padded else (256 << 10)
        said = []
        for kind in kinds:
            if kind == "core.exec.stdin.error":
                said.append(body(kind, {"message": TEXT if padded else "no", "errno": 32}))
            elif kind == "core.credit":
                said.append(body(kind, {"bytes": 2**63}))
            else:
                said.append(chunk(kind, size, padded))
        while True:
            for each in said:
                yield 0, each

    def files(self, op: Any) -> Iterator[tuple[int, bytes]]:
        name = op if isinstance(op, str) else next(iter(op))
        padded = self.style == "padded"
        if name == "Stat":
            # One that says it is small, and one with the longest name.
            path = "/" if padded else "/" + TEXT
            yield TERMINAL, response(data={"Stat": {**entry(path, "file"), "size": 0 if padded else 2**63}})
        elif name == "OpenDir":
            yield TERMINAL, response(data={"Handle": 7})
        elif name == "ReadDir" and self.style == "whole":
            self.pages += 1
            yield TERMINAL, listing(many(1000 if self.pages < 250 else 0, entry("/d/" + "n" * 8, "file")))
        elif name == "ReadDir":
            for page in PAGES[self.style]:
                yield TERMINAL, page
        elif name in ("ReadFile", "ReadTar"):
            yield from self.endless("core.fs.data")
        elif name in ("WriteFile", "WriteTar"):
            yield 0, STRAY
        elif name in ("ReadLink", "RealPath"):
            yield TERMINAL, response(data={"Path": "/" if padded else TEXT})
        elif name == "Watch":
            yield 0, response()
            while True:
                yield 0, body("core.fs.event", {"events": [EVENT] * 900})
        else:
            yield TERMINAL, REFUSAL
