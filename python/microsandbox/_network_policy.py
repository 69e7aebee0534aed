"""Who may talk to whom, as data: destinations, rules and their defaults."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict, Union

from ._checks import checked, serialised
from ._enums import Action, DestGroup, Direction, NetworkDestinationKind, NetworkProfile, Protocol
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
