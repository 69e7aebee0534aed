"""Network policy as data. Sandboxes have loopback only today: anything but `Network.none()` is refused at create."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict, Union

from . import _deprecation
from ._checks import Path, checked, serialised
from ._enums import (
    Action,
    DestGroup,
    Direction,
    NetworkDestinationKind,
    NetworkProfile,
    PortProtocol,
    Protocol,
    ViolationAction,
    VsockSocketType,
)
from ._secrets import SecretSource, ViolationPolicy
from ._signature import spelled_out

if TYPE_CHECKING:
    from typing_extensions import Unpack


@dataclass(frozen=True)
class NetworkDestination:
    """What a rule matches; made by `Destination`.

    Example: `NetworkDestination(NetworkDestinationKind.DOMAIN, "pypi.org")`
    """

    kind: NetworkDestinationKind
    value: Union[str, None] = None

    def _to_dict(self) -> dict[str, Any]:
        return serialised(self, {"kind": NetworkDestinationKind})


NetworkDestinationLike = Union[str, NetworkDestination]


class Destination:
    """Factories of `NetworkDestination`.

    Example: `Rule.allow(destination=Destination.domain("pypi.org"), port=443)`
    """

    @staticmethod
    def any() -> NetworkDestination:
        """Everything.

        Example: `Rule.allow(destination=Destination.any())`
        """
        return NetworkDestination(NetworkDestinationKind.ANY)

    @staticmethod
    def ip(ip: str) -> NetworkDestination:
        """One address.

        Example: `Rule.allow(destination=Destination.ip("192.0.2.7"))`
        """
        return NetworkDestination(NetworkDestinationKind.IP, ip)

    @staticmethod
    def cidr(cidr: str) -> NetworkDestination:
        """A range of addresses.

        Example: `Rule.deny(destination=Destination.cidr("10.0.0.0/8"))`
        """
        return NetworkDestination(NetworkDestinationKind.CIDR, cidr)

    @staticmethod
    def domain(domain: str) -> NetworkDestination:
        """One name.

        Example: `Rule.allow(destination=Destination.domain("pypi.org"))`
        """
        return NetworkDestination(NetworkDestinationKind.DOMAIN, domain)

    @staticmethod
    def domain_suffix(suffix: str) -> NetworkDestination:
        """A name and everything below it.

        Example: `Rule.allow(destination=Destination.domain_suffix("pythonhosted.org"))`
        """
        return NetworkDestination(NetworkDestinationKind.DOMAIN_SUFFIX, suffix)

    @staticmethod
    def group(group: DestGroup) -> NetworkDestination:
        """A named group of addresses.

        Example: `Rule.deny(destination=Destination.group(DestGroup.PRIVATE))`
        """
        return NetworkDestination(NetworkDestinationKind.GROUP, checked(group, DestGroup, "group").value)


class RuleKeywords(TypedDict, total=False):
    """Keywords of `Rule.allow` and `Rule.deny`."""

    direction: Direction
    protocol: Protocol | None
    port: int | str | None
    destination: str | NetworkDestination | None


@dataclass(frozen=True)
class Rule:
    """One rule: the first that matches wins. `port` is a number or a range such as `"8000-8100"`.

    Example: `NetworkPolicy(rules=(Rule.allow(destination="pypi.org", port=443),))`
    """

    action: Action
    direction: Direction = Direction.EGRESS
    destination: Union[str, NetworkDestination, None] = None
    protocol: Union[Protocol, None] = None
    port: Union[int, str, None] = None

    @classmethod
    @spelled_out(RuleKeywords, direction=Direction.EGRESS)
    def allow(cls, **options: Unpack[RuleKeywords]) -> Rule:
        """Let it through.

        Example: `Rule.allow(destination="pypi.org", port=443)`
        """
        return cls(Action.ALLOW, **options)

    @classmethod
    @spelled_out(RuleKeywords, direction=Direction.EGRESS)
    def deny(cls, **options: Unpack[RuleKeywords]) -> Rule:
        """Refuse it.

        Example: `Rule.deny(destination="10.0.0.0/8")`
        """
        return cls(Action.DENY, **options)

    @classmethod
    def allow_dns(cls) -> tuple[Rule, Rule]:
        """Name look-ups at the gateway, UDP and TCP.

        Example: `NetworkPolicy(rules=Rule.allow_dns())`
        """
        return cls._dns(Action.ALLOW)

    @classmethod
    def deny_dns(cls) -> tuple[Rule, Rule]:
        """No name look-ups.

        Example: `NetworkPolicy(rules=Rule.deny_dns())`
        """
        return cls._dns(Action.DENY)

    @classmethod
    def _dns(cls, action: Action) -> tuple[Rule, Rule]:
        host = Destination.group(DestGroup.HOST)
        return (
            cls(action, Direction.EGRESS, host, Protocol.UDP, 53),
            cls(action, Direction.EGRESS, host, Protocol.TCP, 53),
        )

    def _to_dict(self) -> dict[str, Any]:
        result = serialised(self, {"action": Action, "direction": Direction, "protocol": Protocol})
        if isinstance(self.destination, NetworkDestination):
            result["destination"] = self.destination._to_dict()
        elif self.destination is not None and not isinstance(self.destination, str):
            given = type(self.destination).__name__
            raise TypeError(f"Rule.destination must be str or NetworkDestination, not {given}")
        return result


@dataclass(frozen=True)
class NetworkPolicy:
    """Defaults and rules; outgoing traffic is denied and incoming allowed unless a rule says otherwise.

    Example: `policy = NetworkPolicy(rules=Rule.allow_dns())`
    """

    default_egress: Action = Action.DENY
    default_ingress: Action = Action.ALLOW
    rules: tuple[Rule, ...] = ()

    @classmethod
    def none(cls) -> NetworkPolicy:
        """Nothing in, nothing out.

        Example: `network = Network(policy=NetworkPolicy.none())`
        """
        return cls(Action.DENY, Action.DENY)

    @classmethod
    def allow_all(cls) -> NetworkPolicy:
        """Everything.

        Example: `network = Network(policy=NetworkPolicy.allow_all())`
        """
        return cls(Action.ALLOW, Action.ALLOW)

    @classmethod
    def from_profiles(cls, profiles: Iterable[NetworkProfile]) -> NetworkPolicy:
        """DNS, then one rule for each profile in the order public, private, host.

        Example: `policy = NetworkPolicy.from_profiles([NetworkProfile.PUBLIC])`
        """
        wanted = {checked(profile, NetworkProfile, "profile") for profile in profiles}
        groups = {
            NetworkProfile.PUBLIC: DestGroup.PUBLIC,
            NetworkProfile.PRIVATE: DestGroup.PRIVATE,
            NetworkProfile.HOST: DestGroup.HOST,
        }
        rules = [Rule.allow(destination=Destination.group(group)) for key, group in groups.items() if key in wanted]
        return cls(rules=(*Rule.allow_dns(), *rules))

    def _to_dict(self) -> dict[str, Any]:
        result = serialised(self, {"default_egress": Action, "default_ingress": Action})
        for rule in self.rules:
            if not isinstance(rule, Rule):
                raise TypeError(f"NetworkPolicy.rules must hold Rule, not {type(rule).__name__}")
        result["rules"] = [rule._to_dict() for rule in self.rules]
        return result


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
class DnsConfig:
    """How names are resolved. `query_timeout_ms` is 5000 by default.

    Example: `Network(dns=DnsConfig(query_timeout_ms=2000))`
    """

    rebind_protection: bool = True
    nameservers: tuple[str, ...] = ()
    query_timeout_ms: Union[int, None] = None

    def _to_dict(self) -> dict[str, Any]:
        return serialised(self, {})


@dataclass(frozen=True)
class ScopedUpstreamCACert:
    """A CA certificate trusted for hosts that match a pattern.

    Example: `TlsConfig(scoped_upstream_ca_certs=(ScopedUpstreamCACert("*.corp", "ca.pem"),))`
    """

    pattern: str
    path: str

    def _to_dict(self) -> dict[str, Any]:
        return serialised(self, {})


@dataclass(frozen=True)
class ScopedVerifyUpstream:
    """Whether certificates of hosts that match a pattern are verified.

    Example: `TlsConfig(scoped_verify_upstream=(ScopedVerifyUpstream("*.test", False),))`
    """

    pattern: str
    verify: bool

    def _to_dict(self) -> dict[str, Any]:
        return serialised(self, {})


@dataclass(frozen=True)
class TlsConfig:
    """Interception of TLS.

    Example: `Network(tls=TlsConfig(bypass=("*.bank.example",)))`
    """

    bypass: tuple[str, ...] = ()
    verify_upstream: bool = True
    intercepted_ports: tuple[int, ...] = (443,)
    block_quic: bool = False
    upstream_ca_certs: tuple[str, ...] = ()
    scoped_upstream_ca_certs: tuple[ScopedUpstreamCACert, ...] = ()
    scoped_verify_upstream: tuple[ScopedVerifyUpstream, ...] = ()
    ca_cert: Union[str, None] = None
    ca_key: Union[str, None] = None
    ca_cn: Union[str, None] = None

    def _to_dict(self) -> dict[str, Any]:
        return serialised(self, {})


@dataclass(frozen=True)
class TokenBucket:
    """`size` tokens, refilled over `refill_time_ms`.

    Example: `TokenBucket(size=1_000_000, refill_time_ms=1000)`
    """

    size: int
    refill_time_ms: int
    one_time_burst: int = 0

    def _to_dict(self) -> dict[str, Any]:
        return serialised(self, {})


@dataclass(frozen=True)
class RateLimiter:
    """Limits on bytes and on packets.

    Example: `RateLimiter(bandwidth=TokenBucket(1_000_000, 1000))`
    """

    bandwidth: Union[TokenBucket, None] = None
    ops: Union[TokenBucket, None] = None

    def _to_dict(self) -> dict[str, Any]:
        return serialised(self, {})


@dataclass(frozen=True)
class NetworkRateLimiter:
    """Limits on each direction.

    Example: `NetworkRateLimiter(egress=RateLimiter(bandwidth=TokenBucket(1_000_000, 1000)))`
    """

    egress: Union[RateLimiter, None] = None
    ingress: Union[RateLimiter, None] = None

    def _to_dict(self) -> dict[str, Any]:
        return serialised(self, {})


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


@dataclass(frozen=True)
class HttpConfig:
    """What a denied HTTP request is answered; `deny_response_format` is `"json"` or `"text"`.

    Example: `Network(http=HttpConfig(deny_message="ask the operators"))`
    """

    deny_response: bool = True
    deny_message: Union[str, None] = None
    deny_response_format: str = field(default="json", kw_only=True)
    network_deny_message: Union[str, None] = field(default=None, kw_only=True)
    secret_deny_message: Union[str, None] = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.deny_response_format not in ("json", "text"):
            raise ValueError(f"deny_response_format must be 'json' or 'text', not {self.deny_response_format!r}")

    def _to_dict(self) -> dict[str, Any]:
        return serialised(self, {})


@dataclass(frozen=True)
class OutboundProxy:
    """A proxy of the host side; `protocol` is `http_connect`, `socks4` or `socks5`.

    Example: `proxy = OutboundProxy.socks5("proxy.example:1080")`
    """

    protocol: str
    address: str
    user_id: Union[str, None] = None
    username: Union[str, None] = None
    password: Union[SecretSource, None] = None

    def __post_init__(self) -> None:
        if self.protocol not in ("http_connect", "socks4", "socks5"):
            raise ValueError(f"unknown proxy protocol {self.protocol!r}")
        if self.protocol == "socks4" and (self.username or self.password):
            raise ValueError("socks4 has a user_id, not a username and password")
        if self.protocol != "socks4" and self.user_id:
            raise ValueError("only socks4 has a user_id")

    @classmethod
    def http_connect(cls, address: str) -> OutboundProxy:
        """HTTP CONNECT.

        Example: `proxy = OutboundProxy.http_connect("proxy.example:3128")`
        """
        return cls("http_connect", address)

    @classmethod
    def socks4(cls, address: str, *, user_id: Union[str, None] = None) -> OutboundProxy:
        """SOCKS 4.

        Example: `proxy = OutboundProxy.socks4("proxy.example:1080", user_id="me")`
        """
        return cls("socks4", address, user_id=user_id)

    @classmethod
    def socks5(cls, address: str) -> OutboundProxy:
        """SOCKS 5.

        Example: `proxy = OutboundProxy.socks5("proxy.example:1080")`
        """
        return cls("socks5", address)

    def credentials(self, username: str, password: SecretSource) -> OutboundProxy:
        """The same proxy with a login.

        Example: `proxy.credentials("me", SecretSource.env("PROXY_PASSWORD"))`
        """
        return OutboundProxy(self.protocol, self.address, self.user_id, username, password)

    def _to_dict(self) -> dict[str, Any]:
        return serialised(self, {})


@dataclass(frozen=True)
class Network:
    """Everything about a sandbox's network.

    Today a sandbox has loopback only, which is what `Network.none()` asks for; any other value is checked and then
    refused by `create` with `UnsupportedError`.

    Example: `Network(policy=NetworkPolicy.none(), ports={8080: 80})`
    """

    policy: Union[NetworkPolicy, None] = None
    ports: Union[Mapping[int, int], Sequence[PortBinding]] = field(default_factory=dict)
    deny_domains: tuple[str, ...] = ()
    deny_domain_suffixes: tuple[str, ...] = ()
    dns: Union[DnsConfig, None] = None
    tls: Union[TlsConfig, None] = None
    ipv4_pool: Union[str, None] = None
    ipv6_pool: Union[str, None] = None
    max_connections: Union[int, None] = None
    rate_limiter: Union[NetworkRateLimiter, None] = None
    on_secret_violation: Union[ViolationAction, ViolationPolicy] = ViolationAction.BLOCK_AND_LOG
    strict: bool = field(default=True, kw_only=True)
    nat64_prefixes: tuple[str, ...] = field(default=("64:ff9b::/96",), kw_only=True)
    max_tcp_connections: Union[int, None] = field(default=None, kw_only=True)
    max_udp_connections: Union[int, None] = field(default=None, kw_only=True)
    max_inbound_tcp_connections: Union[int, None] = field(default=None, kw_only=True)
    tcp_accept_queue_size: Union[int, None] = field(default=None, kw_only=True)
    secret_violation_action: ViolationAction = field(default=ViolationAction.BLOCK_AND_LOG, kw_only=True)
    http: Union[HttpConfig, None] = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if isinstance(self.ipv4_pool, bool):
            # The later version has `strict` in this place.
            object.__setattr__(self, "strict", self.ipv4_pool)
            object.__setattr__(self, "ipv4_pool", None)
        usual = ViolationAction.BLOCK_AND_LOG
        if self.max_connections is not None:
            _deprecation.warn("Network(max_connections=)", "max_tcp_connections=", depth=2)
            if self.max_tcp_connections not in (None, self.max_connections):
                raise ValueError("max_connections= and max_tcp_connections= differ; give one")
        if self.on_secret_violation != usual:
            _deprecation.warn("Network(on_secret_violation=)", "secret_violation_action=", depth=2)
            if self.secret_violation_action not in (usual, self.on_secret_violation):
                raise ValueError("on_secret_violation= and secret_violation_action= differ; give one")
        _deprecation.passthrough(self.secret_violation_action, depth=2)

    @classmethod
    def none(cls) -> Network:
        """No traffic in either direction.

        Example: `sb = await Sandbox.create("box", image="host", network=Network.none())`
        """
        return cls(policy=NetworkPolicy.none())

    @classmethod
    def from_profiles(cls, *profiles: NetworkProfile) -> Network:
        """The union of ready-made rule sets.

        Example: `network = Network.from_profiles(NetworkProfile.PUBLIC)`
        """
        return cls(policy=NetworkPolicy.from_profiles(profiles))

    @classmethod
    def allow_all(cls) -> Network:
        """Everything.

        Example: `network = Network.allow_all()`
        """
        return cls(policy=NetworkPolicy.allow_all())

    def _is_none(self) -> bool:
        """Whether this asks for nothing beyond "no traffic"."""
        return self == Network.none()

    def _to_dict(self) -> dict[str, Any]:
        result = serialised(self, {"secret_violation_action": ViolationAction})
        if not isinstance(self.on_secret_violation, ViolationPolicy):
            checked(self.on_secret_violation, ViolationAction, "Network.on_secret_violation")
        if self.policy is not None:
            if not isinstance(self.policy, NetworkPolicy):
                raise TypeError(f"Network.policy must be NetworkPolicy, not {type(self.policy).__name__}")
            result["policy"] = self.policy._to_dict()
        return result
