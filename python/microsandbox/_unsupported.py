"""Operations that the surface has and this build has not: they say when they come."""

from __future__ import annotations

from .errors import UnsupportedError

COMPACT = "when snapshots land"
FORK = "when snapshots land"
RUNTIME = "never needed: agent and runtime are inside the wheel"
SAVE = "when image export lands"
SNAPSHOTS = "when snapshots land"
SSH = "when the SSH server lands"
STORAGE = "when storage accounting lands"


def unsupported(operation: str, hint: str) -> UnsupportedError:
    """The error of `operation`, with both fields."""
    error = UnsupportedError(f"{operation} is not supported by this backend: {hint}")
    error.operation = operation
    error.hint = hint
    return error
