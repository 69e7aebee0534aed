"""Running copies of a sandbox."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict, Union

if TYPE_CHECKING:
    from ._enums import GuestFlush
    from ._mount import MountConfig


class ForkKeywords(TypedDict, total=False):
    """Keywords of `fork` and `fork_many`."""

    record_integrity: bool
    guest_flush: GuestFlush | None
    volumes: Mapping[str, MountConfig] | None


@dataclass(frozen=True)
class ForkOutcome:
    """One copy of `fork_many`: a sandbox or an error.

    Example: `print([outcome.error for outcome in await sb.fork_many(["a", "b"])])`
    """

    name: str
    sandbox: Any = None
    error: Union[Exception, None] = None


BranchOutcome = ForkOutcome
