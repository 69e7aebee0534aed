"""Enums, configuration dataclasses and typed dictionaries; the same objects as at top level."""

from __future__ import annotations

from . import _HOME

_WHOLE = (
    "_compaction",
    "_enums",
    "_exec_request",
    "_fork",
    "_image_source",
    "_init",
    "_isolation_report",
    "_modify",
    "_mount",
    "_network",
    "_network_policy",
    "_patch",
    "_ports",
    "_restore",
    "_secrets",
)
_PARTS = {
    "Image": "_image",
    "NetworkDestinationLike": "_network_policy",
    "PullEvent": "_pull",
    "Size": "_size",
    "StrEnum": "_enums",
}
_MODULE = {name: module for module in _WHOLE for name in _HOME[module].split()} | _PARTS

__all__ = sorted(_MODULE)


def __getattr__(name: str) -> object:
    if name not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(__import__(f"microsandbox.{_MODULE[name]}", fromlist=["*"]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
