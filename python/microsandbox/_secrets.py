"""Secrets as data. No backend of this build substitutes them yet: `create` refuses them with `UnsupportedError`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict, Union

from . import _deprecation
from ._checks import checked, serialised
from ._enums import ViolationAction


@dataclass(frozen=True)
class SecretInjection:
    """Where a secret may be put (older spelling of `SecretSubstitution`).

    Example: `SecretInjection(headers=True, body=True)`
    """

    headers: bool = True
    basic_auth: bool = True
    query_params: bool = False
    body: bool = False

    def _to_dict(self) -> dict[str, Any]:
        return serialised(self, {})


@dataclass(frozen=True)
class SecretSubstitution:
    """Where a secret may be put; `header_fields` narrows the headers.

    Example: `SecretSubstitution(headers=True, query=True)`
    """

    headers: bool = True
    query: bool = False
    body: bool = False
    header_fields: tuple[str, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        if self.header_fields and not self.headers:
            raise ValueError("header_fields needs headers=True")

    def _to_dict(self) -> dict[str, Any]:
        return serialised(self, {})


@dataclass(frozen=True)
class ViolationPolicy:
    """What happens on a violation, host by host (older spelling).

    Example: `policy = ViolationPolicy.passthrough(hosts=["api.example"])`
    """

    fallback: ViolationAction = ViolationAction.BLOCK_AND_LOG
    passthrough_hosts: tuple[str, ...] = ()
    passthrough_host_patterns: tuple[str, ...] = ()
    passthrough_all_hosts: bool = False

    @classmethod
    def block(cls) -> ViolationPolicy:
        """Block.

        Example: `policy = ViolationPolicy.block()`
        """
        return cls(ViolationAction.BLOCK)

    @classmethod
    def block_and_log(cls) -> ViolationPolicy:
        """Block and log.

        Example: `policy = ViolationPolicy.block_and_log()`
        """
        return cls(ViolationAction.BLOCK_AND_LOG)

    @classmethod
    def block_and_terminate(cls) -> ViolationPolicy:
        """Block and end the sandbox.

        Example: `policy = ViolationPolicy.block_and_terminate()`
        """
        return cls(ViolationAction.BLOCK_AND_TERMINATE)

    @classmethod
    def passthrough(
        cls, *, hosts: Sequence[str] = (), host_patterns: Sequence[str] = (), all_hosts: bool = False
    ) -> ViolationPolicy:
        """Let the placeholder itself through to these hosts.

        Example: `policy = ViolationPolicy.passthrough(hosts=["api.example"])`
        """
        _deprecation.warn("ViolationPolicy.passthrough()", "Secret.env(allow_placeholder_for=)")
        return cls(ViolationAction.BLOCK_AND_LOG, tuple(hosts), tuple(host_patterns), all_hosts)

    def _to_dict(self) -> dict[str, Any]:
        return serialised(self, {"fallback": ViolationAction})


@dataclass(frozen=True)
class SecretSource:
    """Where the host reads a secret from.

    Example: `SecretSource.env("PROXY_PASSWORD")`
    """

    kind: str
    var: str

    def __post_init__(self) -> None:
        if self.kind != "env":
            raise ValueError(f"a secret source is of kind 'env', not {self.kind!r}")
        if not self.var:
            raise ValueError("the variable's name must not be empty")

    @classmethod
    def env(cls, variable: str) -> SecretSource:
        """A variable of the host's environment.

        Example: `SecretSource.env("PROXY_PASSWORD")`
        """
        return cls("env", variable)

    def _to_dict(self) -> dict[str, Any]:
        return serialised(self, {})


@dataclass(frozen=True)
class SecretEntry:
    """One secret; made by `Secret.env`. Its `repr` hides the value.

    Example: `entry: SecretEntry = Secret.env("API_KEY", value="…", allow=["api.example"])`
    """

    env_var: str
    value: str = field(repr=False)
    allow: tuple[str, ...] = ()
    allow_hosts: tuple[str, ...] = ()
    allow_host_patterns: tuple[str, ...] = ()
    passthrough: tuple[str, ...] = ()
    placeholder: Union[str, None] = None
    require_tls: bool = True
    require_tls_identity: bool = True
    violation_action: Union[ViolationAction, None] = None
    on_violation: Union[ViolationAction, ViolationPolicy] = ViolationAction.BLOCK_AND_LOG
    injection: Union[SecretInjection, None] = None
    substitution: Union[SecretSubstitution, None] = None

    def _to_dict(self) -> dict[str, Any]:
        if not isinstance(self.on_violation, ViolationPolicy):
            checked(self.on_violation, ViolationAction, "SecretEntry.on_violation")
        return serialised(self, {"violation_action": ViolationAction})


class SecretModifySpec(TypedDict, total=False):
    """A changed secret; at most one of `env`, `value` and `store`.

    Example: `await sb.modify(secrets={"API_KEY": SecretModifySpec(value=os.environ["API_KEY"])})`
    """

    env: str
    value: str
    store: str
    placeholder: str
    allowed_hosts: list[str]
    substitution: SecretSubstitution
    violation_action: ViolationAction
    require_tls_identity: bool
    allow_placeholder_for: list[str]
    passthrough: list[str]


class Secret:
    """Factory of `SecretEntry`.

    Example: `Secret.env("API_KEY", value=os.environ["API_KEY"], allow=["api.example"])`
    """

    @staticmethod
    def env(
        env_var: str,
        *,
        value: str,
        allow: Sequence[str] = (),
        allow_hosts: Sequence[str] = (),
        allow_host_patterns: Sequence[str] = (),
        allow_placeholder_for: Sequence[str] = (),
        passthrough: Sequence[str] = (),
        placeholder: Union[str, None] = None,
        require_tls_identity: bool = True,
        require_tls: bool = True,
        violation_action: Union[ViolationAction, None] = None,
        on_violation: Union[ViolationAction, ViolationPolicy] = ViolationAction.BLOCK_AND_LOG,
        substitution: Union[SecretSubstitution, None] = None,
        injection: Union[SecretInjection, None] = None,
    ) -> SecretEntry:
        """A secret that the guest sees as a placeholder in `env_var`, put into requests to allowed hosts only.

        Both spellings of the surface are accepted; host lists of both are merged.

        Example: `Secret.env("API_KEY", value=os.environ["API_KEY"], allow=["api.example"])`
        """
        old = {
            "allow_hosts=": bool(allow_hosts),
            "allow_host_patterns=": bool(allow_host_patterns),
            "require_tls=": not require_tls,
            "on_violation=": on_violation != ViolationAction.BLOCK_AND_LOG,
            "injection=": injection is not None,
            "passthrough=": bool(passthrough),
        }
        new = {
            "allow_hosts=": "allow=",
            "allow_host_patterns=": "allow= with *.suffix",
            "require_tls=": "require_tls_identity=",
            "on_violation=": "violation_action=",
            "injection=": "substitution=",
            "passthrough=": "allow_placeholder_for=",
        }
        for name, used in old.items():
            if used:
                _deprecation.warn(f"Secret.env({name})", new[name])
        _deprecation.passthrough(violation_action)
        if injection is not None and substitution is not None:
            raise ValueError("injection= and substitution= say the same; give one")
        if violation_action is not None and old["on_violation="] and violation_action != on_violation:
            raise ValueError("on_violation= and violation_action= differ; give one")
        if injection is not None:
            headers = injection.headers or injection.basic_auth
            substitution = SecretSubstitution(headers, injection.query_params, injection.body)
        merged = tuple(dict.fromkeys((*allow, *allow_hosts, *allow_host_patterns)))
        return SecretEntry(
            env_var,
            value,
            allow=merged,
            allow_hosts=tuple(host for host in merged if not host.startswith("*")),
            allow_host_patterns=tuple(host for host in merged if host.startswith("*")),
            passthrough=tuple(dict.fromkeys((*allow_placeholder_for, *passthrough))),
            placeholder=placeholder,
            require_tls=require_tls and require_tls_identity,
            require_tls_identity=require_tls and require_tls_identity,
            violation_action=violation_action,
            on_violation=on_violation,
            injection=injection,
            substitution=substitution,
        )
