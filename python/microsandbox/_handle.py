"""The record of a sandbox, and the small values around it."""

# mypy: disable-error-code="empty-body"

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Union

from . import _checks, _isolation, _modify, _storage
from ._calls import SandboxCalls
from ._enums import GuestFlush, SandboxStatus
from ._modify import ModifyKeywords
from ._runtime import STOP_TIMEOUT, make, run
from ._signature import spelled_out
from ._unsupported import SNAPSHOTS, unsupported

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._microsandbox import NativeHandle, NativeSandbox
    from ._modify import SandboxModificationPlan
    from ._sandbox import Sandbox
    from ._snapshot import Snapshot
    from ._storage import StorageItemUsage


@dataclass(frozen=True)
class SandboxPage:
    """One page of records, newest first; `next_cursor` is None on the last.

    Example: `page = await Sandbox.list(); print(len(page.sandboxes), page.next_cursor)`
    """

    sandboxes: list[SandboxHandle]
    next_cursor: Union[str, None] = None


class SandboxHandle(SandboxCalls):
    """A record as it was read, plus lifecycle by name. Needs no running sandbox.

    Example: `for handle in (await Sandbox.list()).sandboxes: print(handle.name, handle.status)`
    """

    def __init__(self, native: NativeHandle) -> None:
        self._native = native

    @property
    def _owner(self) -> NativeHandle:
        return self._native

    @property
    def name(self) -> str:
        """Name of the sandbox."""
        return self._native.name

    @property
    def id(self) -> str:
        """Its identity: differs from that of a later sandbox of the same name."""
        return self._native.id

    @property
    def status(self) -> SandboxStatus:
        """Its status as of the read; `refresh` reads again."""
        return self._native.status

    @property
    def status_snapshot(self) -> SandboxStatus:
        """The same as `status`."""
        return self._native.status

    @property
    def last_error(self) -> str | None:
        """What ended it last, as far as the backend knows."""
        return self._native.last_error

    @property
    def config_json(self) -> str:
        """The stored configuration as JSON."""
        return self._native.config_json

    def config(self) -> dict[str, Any]:
        """The stored configuration. `UnsupportedError` on the cloud, whose answer is not the creator's configuration:
        its own view is in `config_json`.

        Example: `print(handle.config()["resources"]["memory_mib"])`
        """
        if self._native.backend_kind == "cloud":
            raise unsupported("SandboxHandle::config on cloud", "when SandboxConfig is the cloud wire shape")
        parsed: dict[str, Any] = json.loads(self._native.config_json)
        return parsed

    @property
    def created_at(self) -> float | None:
        """Milliseconds since the epoch."""
        return self._native.created_at

    @property
    def updated_at(self) -> float | None:
        """Milliseconds since the epoch."""
        return self._native.updated_at

    async def refresh(self) -> SandboxHandle:
        """The record, read again; this object stays as it is. Raises `SandboxNotFoundError`.

        Example: `handle = await handle.refresh()`
        """
        return SandboxHandle(await run(self._native.refresh()))

    async def connect(self, timeout: float | None = None) -> Sandbox:
        """A connection that does not own the sandbox, within `timeout` seconds (10).

        Raises `SandboxNotRunningError` when the record says so; `refresh` it first if it is old.

        Example: `sb = await handle.connect()`
        """
        return _sandbox(await run(self._native.connect(timeout)))

    async def start(self, *, detached: bool = False) -> Sandbox:
        """Boots it with its stored configuration.

        Example: `sb = await handle.start(detached=True)`
        """
        return _sandbox(await make(self._native.start(detached), _isolation.notice))

    async def connect_or_start(self, *, detached: bool = False) -> Sandbox:
        """Connects to it if it runs, else starts it.

        Example: `sb = await handle.connect_or_start()`
        """
        return _sandbox(await make(self._native.connect_or_start(detached), _isolation.notice))

    @spelled_out(ModifyKeywords)
    async def modify(self, **options: Unpack[ModifyKeywords]) -> SandboxModificationPlan:
        """As `Sandbox.modify`; needs no running sandbox.

        Example: `plan = await handle.modify(memory=1024, dry_run=True)`
        """
        return _modify.plan(await run(self._native.modify(_modify.request(options))))

    async def snapshot(self, name: str) -> Snapshot:
        """Saves its disk. `UnsupportedError` for now.

        Example: `snapshot = await handle.snapshot("base")`
        """
        if self.backend_kind == "cloud":
            raise unsupported("SandboxHandle::snapshot on cloud", "when cloud snapshots land")
        raise unsupported("SandboxHandle.snapshot", SNAPSHOTS)

    async def storage_usage(self) -> StorageItemUsage:
        """Its disk space. Raises `SandboxNotFoundError`.

        Example: `print((await handle.storage_usage()).allocated_bytes)`
        """
        return await _storage.of_sandbox(self.name, self._native.backend)

    async def pause(self, *, guest_flush: GuestFlush | None = None) -> None:
        """As `Sandbox.pause`. `guest_flush=REQUIRED` needs a connection: use `Sandbox.pause` for that.

        Example: `await handle.pause()`
        """
        wanted = _checks.checked(guest_flush, GuestFlush, "guest_flush")
        if wanted is GuestFlush.REQUIRED:
            raise unsupported("SandboxHandle.pause(guest_flush=REQUIRED)", "on a connection: Sandbox.pause")
        await run(self._native.pause())

    async def resume(self) -> None:
        """As `Sandbox.resume`.

        Example: `await handle.resume()`
        """
        await run(self._native.resume())

    async def restart(self, *, force: bool = False, timeout: float | None = None, detached: bool = False) -> Sandbox:
        """Stops (or kills) it and starts it again.

        Example: `sb = await handle.restart()`
        """
        await (self.kill(timeout) if force else self.stop(STOP_TIMEOUT if timeout is None else timeout))
        return await self.start(detached=detached)

    async def destroy(self, *, force: bool = False, timeout: float | None = None) -> None:
        """Stops (or kills) it and removes it.

        Example: `await handle.destroy(force=True)`
        """
        await (self.kill(timeout) if force else self.stop(STOP_TIMEOUT if timeout is None else timeout))
        await run(self._native.remove())

    async def wait_for_status(self, status: SandboxStatus) -> SandboxHandle:
        """Waits until `status` is seen.

        Example: `handle = await handle.wait_for_status(SandboxStatus.RUNNING)`
        """
        return SandboxHandle(await run(self._native.wait_for_status(status)))

    async def remove(self) -> None:
        """Deletes it: record, disk and logs. Refuses to act on a later sandbox of the same name.

        Raises `SandboxStillRunningError`, `SandboxNotFoundError`, `SandboxReplacedError`.

        Example: `await handle.remove()`
        """
        await run(self._native.remove())

    def _repr_html_(self) -> str:
        from . import _notebook

        rows: list[tuple[str, object]] = [("isolation", self.isolation), ("backend", self.backend_kind)]
        rows.append(("id", self.id))
        if self.last_error is not None:
            rows.append(("last error", self.last_error))
        return _notebook.card(self.name, (_notebook.STATUS.get(self.status, "dim"), self.status), rows)

    def __repr__(self) -> str:
        return repr(self._native)


def _sandbox(native: NativeSandbox) -> Sandbox:
    from ._sandbox import Sandbox

    return Sandbox(native)
