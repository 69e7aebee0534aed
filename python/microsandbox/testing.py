"""A fake backend for tests of programs that use this package: sandboxes in memory, scripted programs, injected faults.

Records, statuses, files, logs, paging, validation and errors are those of the local backend. Nothing is isolated, and
only a handful of built-in commands exist besides those that a test scripts.

Example::

    backend = MemoryBackend()
    backend.script("greet", lambda call: ScriptResult(stdout=b"hello " + call.args[0].encode()))
    async with await Sandbox.create("t", image="host", backend=backend) as sb:
        assert (await sb.exec("greet", ["you"])).stdout_text == "hello you"
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Union

from . import _microsandbox
from ._backend import BackendObject
from ._enums import BackendKind
from .errors import MicrosandboxError

__all__ = ["MemoryBackend", "ScriptCall", "ScriptResult", "faults"]


@dataclass(frozen=True)
class ScriptCall:
    """What a scripted program was called with. `stdin` is all of its input; empty for null and pipes."""

    cmd: str
    args: Sequence[str]
    env: Mapping[str, str] = field(repr=False)
    cwd: str
    user: Union[str, None]
    stdin: bytes = field(repr=False)


@dataclass(frozen=True)
class ScriptResult:
    """What a scripted program does; `delay` is in seconds, before the output appears and the program exits."""

    stdout: bytes = b""
    stderr: bytes = b""
    exit_code: int = 0
    delay: float = 0.0


class MemoryBackend(BackendObject):
    """Sandboxes that exist in this object only. Takes the place of `LocalBackend` wherever a backend is taken."""

    def __init__(self) -> None:
        self._tokens = []
        self._memory = _microsandbox.NativeMemory()

    @property
    def kind(self) -> BackendKind:
        """`BackendKind.LOCAL`."""
        return BackendKind.LOCAL

    @property
    def _native(self) -> _microsandbox.NativeBackend:
        return self._memory.backend

    def script(self, cmd: str, handler: Callable[[ScriptCall], ScriptResult]) -> None:
        """Makes `cmd` a program of every sandbox here. A handler that raises is a program that exits with 1."""

        def answer(
            cmd: str, args: Sequence[str], env: Mapping[str, str], cwd: str, user: str | None, stdin: bytes
        ) -> tuple[bytes, bytes, int, float]:
            result = handler(ScriptCall(cmd, args, env, cwd, user, stdin))
            return result.stdout, result.stderr, result.exit_code, result.delay

        self._memory.script(cmd, answer)

    def fail_next(self, operation: str, error: MicrosandboxError) -> None:
        """The next call of `operation` fails with an error of this class; several are taken in order.

        Operations are named as in the core's trait: `create`, `start`, `exec`, `exec_stream`, `fs_read`, `stop` …
        """
        self._memory.fail_next(operation, error)

    def __repr__(self) -> str:
        return "MemoryBackend()"


def faults(backend: MemoryBackend, **operations: MicrosandboxError | Sequence[MicrosandboxError]) -> None:
    """Injects faults by operation: one error, or several for successive calls.

    Example: `faults(backend, exec=SandboxNotFoundError("x"), fs_read=[IoError("disk"), IoError("disk")])`
    """
    for operation, errors in operations.items():
        for error in [errors] if isinstance(errors, MicrosandboxError) else errors:
            backend.fail_next(operation, error)
