"""What separates a sandbox from its host: the report on this machine, and the notice when it is a container."""

from __future__ import annotations

import contextlib
import warnings
from typing import TYPE_CHECKING

from . import _backend, _microsandbox
from ._enums import Isolation
from ._runtime import noticed, run
from .errors import IsolationWarning, MicrosandboxError

if TYPE_CHECKING:
    from ._isolation_report import DoctorReport
    from ._microsandbox import NativeSandbox


async def doctor(*, recheck: bool = False, backend: _backend.BackendObject | None = None) -> DoctorReport:
    """What isolation this machine can give and why not more; what `msb doctor` prints. `recheck` boots a test machine
    again instead of believing what an earlier one found.

    Example: `print((await doctor()).isolation)`
    """
    return await run(_microsandbox.doctor(recheck, _backend.pick(backend)))


async def notice(native: NativeSandbox) -> None:
    """Warns, once per process, when no call demanded a container and the sandbox is one.

    Where a filter turns the warning into an error, the caller gets no sandbox (`_runtime.make`).
    """
    if noticed or native.isolation is not Isolation.CONTAINER or native.asked_isolation != "auto":
        return
    noticed.append(True)
    reason, hint = "this sandbox was made as one", ""
    with contextlib.suppress(MicrosandboxError):
        report: DoctorReport = await run(_microsandbox.doctor(False, native.backend))
        reason, hint = report.reason or reason, report.hint or hint
    remedy = f"To change that: {hint}. " if hint else ""
    text = (
        f"sandboxes are containers on the host's kernel, not virtual machines: {reason}. {remedy}Run `msb doctor` for "
        "details; pass isolation=Isolation.CONTAINER to accept it, or Isolation.MICROVM to demand a virtual machine"
    )
    try:
        warnings.warn(text, IsolationWarning, stacklevel=5)
    except IsolationWarning:
        noticed.clear()
        raise
