"""The agent protocol, written a second time and as small as possible: what a hostile peer needs to speak it."""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import Any

TERMINAL, SESSION_START = 1, 2


def cbor(value: Any) -> bytes:
    """Encodes None, bool, int, str, bytes, list and dict (RFC 8949, shortest form)."""

    def head(major: int, number: int) -> bytes:
        for code, size, form in ((24, 1 << 8, ">B"), (25, 1 << 16, ">H"), (26, 1 << 32, ">I"), (27, 1 << 64, ">Q")):
            if number < 24:
                return bytes([major << 5 | number])
            if number < size:
                return bytes([major << 5 | code]) + struct.pack(form, number)
        raise ValueError(number)

    if value is None or isinstance(value, bool):
        return {None: b"\xf6", False: b"\xf4", True: b"\xf5"}[value]
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(cbor, value))
    if isinstance(value, dict):
        return head(5, len(value)) + b"".join(cbor(k) + cbor(v) for k, v in value.items())
    raise TypeError(type(value))


def uncbor(data: bytes) -> Any:
    """Decodes what `cbor` encodes, and indefinite forms."""

    def item(at: int) -> tuple[Any, int]:
        major, low = data[at] >> 5, data[at] & 31
        at += 1
        if major == 7:
            if low == 27:
                return struct.unpack(">d", data[at : at + 8])[0], at + 8
            if low == 31:
                return StopIteration, at
            return {20: False, 21: True, 22: None, 23: None}[low], at
        if low < 24:
            number: int | None = low
        elif low == 31:
            number = None
        else:
            size = 1 << (low - 24)
            number, at = int.from_bytes(data[at : at + size], "big"), at + size
        if major in (0, 1):
            assert number is not None
            return (number if major == 0 else -1 - number), at
        if major in (2, 3):
            assert number is not None
            raw = data[at : at + number]
            return (raw if major == 2 else raw.decode()), at + number
        entries: list[Any] = []
        while number is None or len(entries) < number * (2 if major == 5 else 1):
            value, at = item(at)
            if value is StopIteration:
                break
            entries.append(value)
        if major == 4:
            return entries, at
        return dict(zip(entries[::2], entries[1::2], strict=True)), at

    return item(0)[0]


def frame(kind: str, payload: Any, *, number: int = 0, flags: int = 0, generation: int = 7) -> bytes:
    body = cbor({"v": generation, "t": kind, "p": cbor(payload)})
    return struct.pack(">IIB", len(body) + 5, number, flags) + body


class Peer:
    """A connection that speaks frames, or anything else that a test wants to say."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        connection.settimeout(15)

    @classmethod
    def connect(cls, path: Path) -> Peer:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(15)
        try:
            connection.connect(str(path))
        except OSError:
            connection.close()
            raise
        return cls(connection)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes; EOFError at the end of the connection."""
        data = b""
        while len(data) < size:
            try:
                block = self.connection.recv(size - len(data))
            except ConnectionError as error:
                raise EOFError from error
            if not block:
                raise EOFError
            data += block
        return data

    def receive(self) -> tuple[int, int, str, Any]:
        """One frame: correlation id, flags, kind, payload."""
        length, number, flags = struct.unpack(">IIB", self.read(9))
        body = uncbor(self.read(length - 5))
        return number, flags, body["t"], uncbor(body["p"])

    def ends(self) -> bool:
        """Whether the other side closes within the timeout; what it says before is dropped."""
        try:
            while True:
                self.read(1)
        except EOFError:
            return True
        except TimeoutError:
            return False

    def hello(self, token: bytes) -> tuple[int, int]:
        """Shows the token; the range of correlation ids that the agent gives."""
        self.send(frame("core.hello", {"token": token, "extension_min": 1, "extension_max": 1}, flags=0))
        low, high = struct.unpack(">II", self.read(8))
        assert self.receive()[2] == "core.ready"
        return low, high
