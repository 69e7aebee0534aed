"""One line for every old spelling that still works."""

from __future__ import annotations

import warnings


def warn(old: str, new: str, *, depth: int = 1) -> None:
    """Names the new spelling; `depth` frames above the function that calls this is the user's line."""
    warnings.warn(f"{old} is the older spelling; use {new}", DeprecationWarning, stacklevel=2 + depth)
