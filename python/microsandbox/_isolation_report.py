"""What is known of the isolation of a sandbox and of this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

from ._checks import Path
from ._enums import Isolation, MechanismState


@dataclass(frozen=True)
class Mechanism:
    """One mechanism of isolation: its state, and why it is not on (or what exactly is).

    Example: `print([(m.name, m.state) for m in (await sb.isolation_report()).mechanisms])`
    """

    name: str
    state: MechanismState
    reason: Union[str, None] = None


@dataclass(frozen=True)
class IsolationReport:
    """What separates a sandbox from its host: driver (`container` or `microvm`), accelerator, each mechanism.

    Example: `print([m.name for m in (await sb.isolation_report()).mechanisms if m.reason])`
    """

    driver: str
    accelerator: Union[str, None]
    mechanisms: tuple[Mechanism, ...]


@dataclass(frozen=True)
class DoctorCheck:
    """One thing that `doctor` looked at, and what to do when it is not on.

    Example: `print([check.hint for check in (await doctor()).checks if check.hint])`
    """

    name: str
    state: MechanismState
    detail: str
    hint: Union[str, None] = None


@dataclass(frozen=True)
class LibraryRung:
    """One place where the guest kernel's library (libkrunfw) is looked for.

    `rung` is `MSB_LIBKRUNFW_PATH`, `set_libkrunfw_path`, `paths.libkrunfw`, `system` or `home`; `found` is `unset`,
    `absent`, `unusable`, `taken` or `passed over` (an earlier place decided); `detail` says why, or the digest.

    Example: `print([rung.found for rung in (await doctor()).libkrunfw])`
    """

    rung: str
    path: Union[Path, None]
    found: str
    detail: Union[str, None] = None


@dataclass(frozen=True)
class BootStep:
    """One step of a boot: whose (`sdk` or `runtime`), which, and when it was finished, in µs since the request.

    Example: `print(max(sb.boot_timings, key=lambda step: step.at_us))`
    """

    side: str
    step: str
    at_us: int


@dataclass(frozen=True)
class DoctorReport:
    """What isolation `Isolation.AUTO` gives on this host, why not more, and every check.

    Example: `report = await doctor(); print(report.isolation, report.hint)`
    """

    isolation: Isolation
    reason: Union[str, None]
    hint: Union[str, None]
    checks: tuple[DoctorCheck, ...]
    #: Where the guest kernel's library was looked for, in order.
    libkrunfw: tuple[LibraryRung, ...] = ()
