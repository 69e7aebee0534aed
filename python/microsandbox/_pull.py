"""Creating with progress."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Union

from ._enums import PullEventType

if TYPE_CHECKING:
    from ._microsandbox import NativeSandbox, Pending
    from ._sandbox import Sandbox


@dataclass(frozen=True)
class PullEvent:
    """One step of a pull; fields that do not apply are None. Sizes are bytes.

    Example: `print([event.event_type async for event in session.progress])`
    """

    event_type: PullEventType
    reference: Union[str, None] = None
    manifest_digest: Union[str, None] = None
    layer_count: Union[int, None] = None
    total_download_bytes: Union[int, None] = None
    layer_index: Union[int, None] = None
    digest: Union[str, None] = None
    diff_id: Union[str, None] = None
    downloaded_bytes: Union[int, None] = None
    total_bytes: Union[int, None] = None
    bytes_read: Union[int, None] = None
    phase: Union[str, None] = None
    completed_bytes: Union[int, None] = None


class PullProgressIter:
    """An iterator of `PullEvent`. Empty while nothing is pulled from a registry.

    Example: `async for event in session.progress: print(event.event_type)`
    """

    def __aiter__(self) -> PullProgressIter:
        return self

    async def __anext__(self) -> PullEvent:
        raise StopAsyncIteration


class PullSession:
    """A sandbox in the making: its progress, and the sandbox itself through `result()`.

    Example: `session = Sandbox.create_with_progress("box", image="host"); sb = await session.result()`
    """

    def __init__(
        self, call: Pending[NativeSandbox], finish: Callable[[Pending[NativeSandbox]], Coroutine[Any, Any, Sandbox]]
    ) -> None:
        self._call: Pending[NativeSandbox] | None = call
        self._finish = finish
        call.start()

    @property
    def progress(self) -> PullProgressIter:
        """Steps of the pull."""
        return PullProgressIter()

    async def result(self) -> Sandbox:
        """The sandbox, or the error that `create` raises. Once; a second call is a RuntimeError.

        Example: `sb = await session.result()`
        """
        call, self._call = self._call, None
        if call is None:
            raise RuntimeError("the result was already consumed")
        return await self._finish(call)

    def cancel(self) -> None:
        """Gives the work up; a half-made sandbox is torn down.

        Example: `session.cancel()`
        """
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    async def __aenter__(self) -> PullSession:
        return self

    async def __aexit__(self, *exc: object) -> None:
        call, self._call = self._call, None
        if call is not None:
            await self._finish(call)
