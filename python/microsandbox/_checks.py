"""Checks that dataclasses and calls share."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any, Union

Path = Union[str, "os.PathLike[str]"]


def checked(value: Any, kind: type[Any], where: str) -> Any:
    """`value` as a member of `kind`; None stays None. A plain string must equal a member's value."""
    if value is None or type(value) is kind:
        return value
    if type(value) is str:
        for member in kind:
            if member.value == value:
                return member
        allowed = ", ".join(repr(member.value) for member in kind)
        raise TypeError(f"{where} must be {kind.__name__}, not {value!r}; allowed: {allowed}")
    raise TypeError(f"{where} must be {kind.__name__}, not {type(value).__name__}")


def bounded(name: str, value: Any, low: int, high: int) -> int:
    """`value` as an integer from `low` to `high`; a `bool` is none."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be int, not {type(value).__name__}")
    if not low <= value <= high:
        raise ValueError(f"{name} must be {low} to {high}, not {value}")
    return value


def number(name: str, value: Any) -> float:
    """`value` as a finite number; a `bool` is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} must be finite")
    return value


def serialised(config: Any, enums: Mapping[str, type[Any]]) -> dict[str, Any]:
    """The fields that are set: enums as their values, configurations as their mappings, in tuples too.

    Every enum field is checked, used or not.
    """
    from dataclasses import fields

    result: dict[str, Any] = {}
    for item in fields(config):
        value = getattr(config, item.name)
        kind = enums.get(item.name)
        if kind is not None:
            value = checked(value, kind, f"{type(config).__name__}.{item.name}")
            value = None if value is None else value.value
        if value is not None:
            result[item.name.lstrip("_")] = _plain(value)
    return result


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item) for item in value)
    return value._to_dict() if hasattr(value, "_to_dict") else getattr(value, "value", value)
