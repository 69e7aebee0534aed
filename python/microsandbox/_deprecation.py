"""One line for every old spelling that still works."""

from __future__ import annotations

import warnings
from typing import Any


def warn(old: str, new: str, *, depth: int = 1) -> None:
    """Names the new spelling; `depth` frames above the function that calls this is the user's line."""
    warnings.warn(f"{old} is the older spelling; use {new}", DeprecationWarning, stacklevel=2 + depth)


def passthrough(action: Any, *, depth: int = 1) -> None:
    """Warns of `ViolationAction.PASSTHROUGH`, wherever an action is given."""
    if action == "passthrough":
        warn("ViolationAction.PASSTHROUGH", "Secret.env(allow_placeholder_for=)", depth=depth + 1)
