"""Network policy as data. Sandboxes have loopback only today: anything but `Network.none()` is refused at create."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Union

from . import _deprecation
from ._checks import checked, serialised
from ._enums import (
    NetworkProfile,
    ViolationAction,
)
from ._network_policy import NetworkPolicy
from ._ports import PortBinding
from ._secrets import SecretSource, ViolationPolicy

if TYPE_CHECKING:
    pass


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
