# Generated from _pull.py by python/tools/generate_sync.py: change that, not this.
"""Creating with progress."""
from __future__ import annotations
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Union
from .._pull import PullEvent as PullEvent
from .._enums import PullEventType
if TYPE_CHECKING:
    from .._microsandbox import NativeSandbox, Pending
    from ._sandbox import Sandbox

class PullProgressIter:
    """An iterator of `PullEvent`. Empty while nothing is pulled from a registry.

    Example: `for event in session.progress: print(event.event_type)`
    """

    def __iter__(self) -> PullProgressIter:
        return self

    def __next__(self) -> PullEvent:
        raise StopIteration

class PullSession:
    """A sandbox in the making: its progress, and the sandbox itself through `result()`.

    Example: `session = Sandbox.create_with_progress("box", image="host"); sb = session.result()`
    """

    def __init__(self, call: Pending[NativeSandbox], finish: Callable[[Pending[NativeSandbox]], Sandbox]) -> None:
        self._call: Pending[NativeSandbox] | None = call
        self._finish = finish
        call.start()

    @property
    def progress(self) -> PullProgressIter:
        """Steps of the pull."""
        return PullProgressIter()

    def result(self) -> Sandbox:
        """The sandbox, or the error that `create` raises. Once; a second call is a RuntimeError.

        Example: `sb = session.result()`
        """
        call, self._call = (self._call, None)
        if call is None:
            raise RuntimeError('the result was already consumed')
        return self._finish(call)

    def cancel(self) -> None:
        """Gives the work up; a half-made sandbox is torn down.

        Example: `session.cancel()`
        """
        call, self._call = (self._call, None)
        if call is not None:
            call.cancel()

    def __enter__(self) -> PullSession:
        return self

    def __exit__(self, *exc: object) -> None:
        call, self._call = (self._call, None)
        if call is not None:
            self._finish(call)
