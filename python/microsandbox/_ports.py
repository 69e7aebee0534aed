"""Ports and sockets of the host that lead into a sandbox, as data."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from ._checks import Path, serialised
from ._enums import PortProtocol, VsockSocketType


@dataclass(frozen=True)
class PortBinding:
    """A host port that leads to a guest port.

    Example: `PortBinding(8080, 80)`
    """

    host_port: int
    guest_port: int
    bind: str = "127.0.0.1"
    protocol: PortProtocol = PortProtocol.TCP

    @classmethod
    def tcp(cls, host_port: int, guest_port: int, *, bind: str = "127.0.0.1") -> PortBinding:
        """A TCP port.

        Example: `PortBinding.tcp(8080, 80)`
        """
        return cls(host_port, guest_port, bind, PortProtocol.TCP)

    @classmethod
    def udp(cls, host_port: int, guest_port: int, *, bind: str = "127.0.0.1") -> PortBinding:
        """A UDP port.

        Example: `PortBinding.udp(5353, 53, bind="0.0.0.0")`
        """
        return cls(host_port, guest_port, bind, PortProtocol.UDP)

    def _to_dict(self) -> dict[str, Any]:
        for name, low in (("host_port", 0), ("guest_port", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"PortBinding.{name} must be int, not {type(value).__name__}")
            if not low <= value <= 65535:
                raise ValueError(f"PortBinding.{name} must be {low} to 65535: got {value}")
        return serialised(self, {"protocol": PortProtocol})


@dataclass(frozen=True)
class PortEndpoint:
    """A published port to withdraw.

    Example: `await sb.modify(ports_rm=[PortEndpoint(8080)])`
    """

    host_port: int
    bind: str = "127.0.0.1"
    protocol: PortProtocol = PortProtocol.TCP

    def _to_dict(self) -> dict[str, Any]:
        return serialised(self, {"protocol": PortProtocol})


@dataclass(frozen=True)
class VsockRoute:
    """A host socket that leads to a guest vsock port.

    Example: `VsockRoute("/run/app.sock", 5000)`
    """

    host_socket: Path
    port: int
    socket_type: VsockSocketType = VsockSocketType.STREAM

    @classmethod
    def stream(cls, host_socket: Path, port: int) -> VsockRoute:
        """A stream socket.

        Example: `VsockRoute.stream("/run/app.sock", 5000)`
        """
        return cls(host_socket, port, VsockSocketType.STREAM)

    @classmethod
    def dgram(cls, host_socket: Path, port: int) -> VsockRoute:
        """A datagram socket.

        Example: `VsockRoute.dgram("/run/app.sock", 5000)`
        """
        return cls(host_socket, port, VsockSocketType.DGRAM)

    def _to_dict(self) -> dict[str, Any]:
        return {**serialised(self, {"socket_type": VsockSocketType}), "host_socket": os.fspath(self.host_socket)}
