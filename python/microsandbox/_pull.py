"""Creating with progress."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Union

from ._enums import PullEventType
from ._progress import Progress
from ._runtime import run

if TYPE_CHECKING:
    from ._microsandbox import NativePullEvents, NativeSandbox, Pending
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
    """An iterator of `PullEvent`: `RESOLVING` first, `COMPLETE` last. Empty when nothing is asked of a registry.

    Each step is read once, whichever iterator reads it. It ends with the work; an error of the work is raised by
    `result()`, not here.

    Example: `async for event in session.progress: print(event.event_type)`
    """

    def __init__(self, native: NativePullEvents) -> None:
        self._native = native

    def __aiter__(self) -> PullProgressIter:
        return self

    async def __anext__(self) -> PullEvent:
        fields = await run(self._native.next())
        if fields is None:
            raise StopAsyncIteration
        fields["event_type"] = PullEventType(fields["event_type"])
        return PullEvent(**fields)


class PullSession:
    """A sandbox in the making: its progress, and the sandbox itself through `result()`.

    Example: `session = Sandbox.create_with_progress("box", image="host"); sb = await session.result()`
    """

    def __init__(
        self,
        started: tuple[Pending[NativeSandbox], NativePullEvents],
        finish: Callable[[Pending[NativeSandbox]], Coroutine[Any, Any, Sandbox]],
    ) -> None:
        call, self._events = started
        self._call: Pending[NativeSandbox] | None = call
        self._finish = finish
        call.start()

    @property
    def progress(self) -> PullProgressIter:
        """Steps of the pull, as they come.

        Example: `print([event.event_type async for event in session.progress])`
        """
        return PullProgressIter(self._events)

    async def result(self) -> Sandbox:
        """The sandbox, or the error that `create` raises. Once; a second call is a RuntimeError.

        Example: `sb = await session.result()`
        """
        call, self._call = self._call, None
        if call is None:
            raise RuntimeError("the result was already consumed")
        return await self._finish(call)

    def cancel(self) -> None:
        """Gives the work up; a half-made sandbox is torn down. What was downloaded stays: the next pull resumes.

        Example: `session.cancel()`
        """
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    async def _shown(self) -> Sandbox:
        """`result()`, with a bar of what the pull has downloaded."""
        try:
            with Progress("pulling") as bar:
                downloads: dict[int, int] = {}
                total: int | None = None
                async for event in self.progress:
                    if event.event_type is PullEventType.RESOLVED:
                        total = event.total_download_bytes
                        bar._title = f"pulling {event.reference}"
                    elif event.downloaded_bytes is not None and event.layer_index is not None:
                        downloads[event.layer_index] = event.downloaded_bytes
                        bar(sum(downloads.values()), total)
            return await self.result()
        except BaseException:
            self.cancel()
            raise

    async def __aenter__(self) -> PullSession:
        return self

    async def __aexit__(self, *exc: object) -> None:
        call, self._call = self._call, None
        if call is not None:
            await self._finish(call)
