"""Programs that become process 1 of a sandbox."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict


@dataclass(frozen=True)
class InitConfig:
    """A program that becomes process 1 of the sandbox.

    Example: `InitConfig("/sbin/init", ("--unit=multi-user.target",), {"container": "other"})`
    """

    cmd: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)

    def _to_dict(self) -> dict[str, Any]:
        return {"cmd": self.cmd, "args": list(self.args), "env": dict(self.env)}


class _InitRequired(TypedDict):
    cmd: str


class InitOptions(_InitRequired, total=False):
    """`InitConfig` as a mapping.

    Example: `sb = await Sandbox.create("box", image="debian:12", init=InitOptions(cmd="/sbin/init"))`
    """

    args: list[str]
    env: dict[str, str]
