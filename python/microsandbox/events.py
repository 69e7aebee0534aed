"""Events of running programs and of pulls; the same objects as at top level."""

from __future__ import annotations

from ._enums import ExecEventType, PullEventType
from ._microsandbox import ExecEvent
from ._pull import PullEvent

__all__ = ["ExecEvent", "ExecEventType", "PullEvent", "PullEventType"]
