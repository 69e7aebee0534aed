"""Resource use: a stream of one sandbox, and a look at all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _backend
from ._sandbox import Sandbox
from .errors import (
    MetricsDisabledError,
    MetricsUnavailableError,
    MicrosandboxError,
    SandboxNotFoundError,
    SandboxNotRunningError,
)

if TYPE_CHECKING:
    from ._microsandbox import SandboxMetrics


async def all_sandbox_metrics(*, backend: _backend.BackendObject | None = None) -> dict[str, SandboxMetrics]:
    """The latest sample of every running sandbox, by name. Sandboxes without one are left out.

    Example: `for name, sample in (await all_sandbox_metrics()).items(): print(name, sample.cpu_percent)`
    """
    result: dict[str, SandboxMetrics] = {}
    cursor: str | None = None
    cursors: set[str] = set()
    while True:
        page = await Sandbox.list_with(cursor=cursor, limit=100, backend=backend)
        for handle in page.sandboxes:
            if handle.status not in ("running", "draining"):
                continue
            try:
                result[handle.name] = await handle.metrics()
            except (MetricsDisabledError, MetricsUnavailableError, SandboxNotFoundError, SandboxNotRunningError):
                # Ended, or was switched off, while we looked.
                continue
        cursor = page.next_cursor
        if cursor is None:
            return result
        if cursor in cursors:
            raise MicrosandboxError("list sandboxes: the service repeats a cursor, so the list would not end")
        cursors.add(cursor)
