"""How a checked native call is run: awaited by the async face, waited for by `microsandbox.sync`."""

from __future__ import annotations

import atexit
import sys
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from . import _microsandbox

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, CancelledError
    from pathlib import Path

#: Seconds that `stop` waits for an orderly end unless the call says otherwise.
STOP_TIMEOUT = 10.0

_T = TypeVar("_T")
_F = TypeVar("_F", bound=Callable[..., Any])

#: Filled once either face has warned that sandboxes are containers.
noticed: list[bool] = []

# Errors are raised in destructors, too, when nothing can be imported any more.
_microsandbox._resolve()
# No worker thread may ask a dying interpreter for its lock.
atexit.register(_microsandbox._shutdown)


async def run(call: _microsandbox.Pending[_T]) -> _T:
    """Runs `call` on the loop of the caller."""
    return await call


def wait(call: _microsandbox.Pending[_T]) -> _T:
    """Runs `call` here, blocking this thread only; the sync face's `run`."""
    return call.wait()


async def make(call: _microsandbox.Pending[_T], finish: Callable[[_T], Coroutine[Any, Any, None]] | None = None) -> _T:
    """Runs `call`, which makes something, and `finish` with it: the caller gets it, or nothing is left of it, also when
    the task is cancelled. A cancellation is delivered once everything is undone. If the call failed as well, its error
    is the cause of the cancellation."""
    try:
        made = await call
        if finish is not None:
            await finish(made)
    except (GeneratorExit, KeyboardInterrupt, SystemExit):
        # Nothing can be awaited any more; what was made is undone in the background when `call` is dropped.
        raise
    except BaseException as error:
        if cancellation := await _uncancelled(call.undone()):
            raise cancellation from error
        raise
    call.keep()
    return made


async def _uncancelled(call: _microsandbox.Pending[None]) -> CancelledError | None:
    """Runs `call` to its end, also in a task that is cancelled, and returns the last cancellation of the task."""
    from asyncio import CancelledError, ensure_future, shield

    cancellation = None
    running = ensure_future(run(call))
    while not running.done():
        # What it fails with is logged: the reason for the undoing is the one to report.
        with suppress(Exception):
            try:
                await shield(running)
            except CancelledError as error:
                cancellation = error
    return cancellation


def make_here(call: _microsandbox.Pending[_T], finish: Callable[[_T], None] | None = None) -> _T:
    """The sync face's `make`."""
    made = call.wait()
    try:
        if finish is not None:
            finish(made)
    except BaseException:
        call.undone().wait()
        raise
    call.keep()
    return made


def on_loop(progress: Callable[[int, int | None], None] | None) -> Callable[[int, int | None], None] | None:
    """`progress` for a native call, which reports from a thread of its own: called on the loop of the caller."""
    if progress is None:
        return None
    from asyncio import get_running_loop

    loop, callback = get_running_loop(), progress
    return lambda done, total: _on(loop, callback, done, total)


def _on(loop: AbstractEventLoop, callback: Callable[[int, int | None], None], done: int, total: int | None) -> None:
    # The loop may have been closed since.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(callback, done, total)


def on_thread(progress: Callable[[int, int | None], None] | None) -> Callable[[int, int | None], None] | None:
    """The sync face's `on_loop`: called from the native call's own thread."""
    return progress


def eager(function: _F) -> _F:
    """Marks a plain function that checks its arguments and returns a coroutine as a coroutine function."""
    if sys.version_info >= (3, 12):
        from inspect import markcoroutinefunction

        return markcoroutinefunction(function)
    if "asyncio" in sys.modules:
        # What older interpreters look for; without asyncio loaded there is nothing to look for it.
        function._is_coroutine = sys.modules["asyncio"].coroutines._is_coroutine  # type: ignore[attr-defined]
    return function


def mark_eager(*functions: Callable[..., Any]) -> None:
    """As `eager`, for static methods, where type checkers do not look through a decorator."""
    for function in functions:
        eager(function)


def require_loop() -> None:
    """Refuses, in a fixed text, calls that need a running loop."""
    from asyncio import get_running_loop

    try:
        get_running_loop()
    except RuntimeError:
        text = (
            "no running event loop of asyncio: await this inside a coroutine of asyncio or uvloop; elsewhere, and "
            "under trio, use microsandbox.sync (trio.to_thread.run_sync)"
        )
        raise RuntimeError(text) from None


class AwaitableStr(str):
    """A `str` that may also be awaited or called; both give a plain `str`."""

    def __await__(self) -> Generator[Any, None, str]:
        yield from ()
        return str(self)

    def __call__(self) -> AwaitableStr:
        return self


class AwaitableBool:
    """A truth value that may also be awaited or called; `await` gives a plain `bool`."""

    __slots__ = ("_value",)

    def __init__(self, value: bool) -> None:
        self._value = bool(value)

    def __bool__(self) -> bool:
        return self._value

    def __await__(self) -> Generator[Any, None, bool]:
        yield from ()
        return self._value

    def __call__(self) -> AwaitableBool:
        return self

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (bool, AwaitableBool)):
            return self._value == bool(other)
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return repr(self._value)


def msb_path() -> Path:
    """The `msb` command that belongs to this installation: the console script beside the interpreter."""
    from pathlib import Path

    return Path(sys.executable).parent / "msb"
