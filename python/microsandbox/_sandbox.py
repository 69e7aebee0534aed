"""A live sandbox."""

# mypy: disable-error-code="empty-body"

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from . import (
    _backend,
    _checks,
    _create,
    _exec_request,
    _isolation,
    _jobs,
    _microsandbox,
    _modify,
    _restore,
)
from ._calls import SandboxCalls
from ._create import CreateKeywords
from ._enums import GuestFlush, SandboxStatus
from ._exec import ExecHandle
from ._exec_request import AttachKeywords, DetachedKeywords, ExecKeywords
from ._files import SandboxFsOps
from ._handle import SandboxHandle, SandboxPage
from ._metrics_stream import MetricsStream
from ._modify import ModifyKeywords
from ._pull import PullSession
from ._restore import RestoreKeywords
from ._runtime import STOP_TIMEOUT, AwaitableBool, AwaitableStr, eager, make, mark_eager, require_loop, run
from ._signature import spelled_out
from ._snapshot import Snapshot, SnapshotHandle
from ._ssh import SandboxSshOps
from ._unsupported import SNAPSHOTS, refuse_later, refused, unsupported
from .errors import MicrosandboxError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence

    from typing_extensions import Unpack

    from ._backend import BackendObject
    from ._checks import Path
    from ._exec_request import ExecOptions
    from ._isolation_report import BootStep
    from ._jobs import Job
    from ._microsandbox import ExecOutput, NativeExec, NativeSandbox, SandboxStopResult
    from ._modify import SandboxModificationPlan
    from ._restore import ExternalMountWarning

#: `Sandbox.list` hides the builtin inside the class.
_List = list


async def _opened(call: _microsandbox.Pending[NativeSandbox]) -> Sandbox:
    """The sandbox that `call` brings up; warns if its isolation is weaker than a virtual machine."""
    return Sandbox(await make(call, _isolation.notice))


async def _job(owner: NativeSandbox, call: _microsandbox.Pending[Mapping[str, Any]]) -> Job:
    return _jobs.of(owner, await run(call))


async def _status(call: _microsandbox.Pending[int]) -> int:
    return await run(call)


async def _flush(sandbox: Sandbox, guest_flush: GuestFlush | None) -> None:
    """Writes out the guest's file systems where that is asked for; AUTO does what can be done."""
    wanted = _checks.checked(guest_flush, GuestFlush, "guest_flush")
    if wanted is GuestFlush.REQUIRED:
        done = await sandbox.exec("sync")
        if not done.success:
            raise MicrosandboxError(f"sync ended with status {done.exit_code}; nothing was paused")


async def _running(call: _microsandbox.Pending[NativeExec]) -> ExecHandle:
    return ExecHandle(await run(call))


class Sandbox(SandboxCalls):
    """A connection to one running sandbox; comes from `create`, `start` or `SandboxHandle.connect`.

    Leaving the block of the context manager kills **and removes** the sandbox. Without a block, an attached sandbox
    ends with this process and its record stays; a detached one keeps running.

    Example::

        async with await Sandbox.create("demo", image="host") as sb:
            print((await sb.exec("uname", ["-s"])).stdout_text)
    """

    def __init__(self, native: NativeSandbox) -> None:
        self._native: NativeSandbox | None = native

    @property
    def _live(self) -> NativeSandbox:
        if self._native is None:
            raise RuntimeError("sandbox has been consumed")
        return self._native

    @property
    def _owner(self) -> NativeSandbox:
        return self._live

    def _consume(self) -> NativeSandbox:
        native = self._live
        self._native = None
        return native

    @staticmethod
    @spelled_out(CreateKeywords)
    def create(name: str, **options: Unpack[CreateKeywords]) -> Coroutine[Any, Any, Sandbox]:
        """Makes and boots a sandbox.

        `name` is 1 to 128 of `A-Z a-z 0-9 . _ -`, beginning with a letter or digit. Exactly one of `image` and
        `from_snapshot` is needed; `image="host"` is this machine's own system, read-only; text that begins with `/`,
        `./` or `../` and a `Path` are directories; other text is the name of an image. `memory` is in MiB (512), `cpus`
        1 to 255 (1), durations are in seconds. `replace` stops and removes a sandbox of the same name first, with
        `replace_with_timeout` seconds of grace (10). `detached` lets the sandbox outlive this process, `ephemeral`
        removes it when its run ends, `idle_timeout` ends it after that much inactivity, `max_duration` limits one run.
        `rlimits` holds for every program, and raises what programs may ask for.
        `isolation` is a demand, `backend` the place (the ambient one by default).

        Arguments are checked first: `TypeError`, `ValueError`. Then it raises `InvalidConfigError`,
        `SandboxAlreadyExistsError`, `ImageNotFoundError`, `ImagePullFailedError`, `IsolationUnavailableError`,
        `BootStartError`, and `UnsupportedError` for an option that this build cannot honour.

        Example: `sb = await Sandbox.create("demo", image="host", memory=256)`
        """
        events = None
        if _create.shows_pull(options):
            call, events = _create.call(_microsandbox.create_with_progress, name, options)
        else:
            call = _create.call(_microsandbox.create, name, options)
        require_loop()
        return _opened(call) if events is None else PullSession((call, events), _opened)._shown()

    @staticmethod
    @spelled_out(CreateKeywords)
    def create_with_progress(name: str, **options: Unpack[CreateKeywords]) -> PullSession:
        """As `create`; the work starts with the call, and failures appear in `result()`.

        Example: `sb = await Sandbox.create_with_progress("box", image="host").result()`
        """
        return PullSession(_create.call(_microsandbox.create_with_progress, name, options), _opened)

    @staticmethod
    @spelled_out(CreateKeywords)
    def connect_or_create(name: str, **options: Unpack[CreateKeywords]) -> Coroutine[Any, Any, Sandbox]:
        """Connects to a running sandbox of this name, starts a stopped one, else creates it as `create` does.

        Example: `sb = await Sandbox.connect_or_create("box", image="host")`
        """
        call = _create.call(_microsandbox.connect_or_create, name, options)
        require_loop()
        return _opened(call)

    @staticmethod
    @spelled_out(RestoreKeywords, external_mount_policy="strict")
    def restore(
        snapshot: Snapshot | SnapshotHandle | Path, *, name: str, **options: Unpack[RestoreKeywords]
    ) -> Coroutine[Any, Any, Sandbox]:
        """Boots from a snapshot. Arguments are checked in the call; `UnsupportedError` for now.

        `cpus`, `memory` (MiB) and the limits are those of `create`; `cow_memory` shares the snapshot's memory until it
        is written to, `disk_only` leaves memory out. `external_mount_policy` is `"strict"`, which refuses host mounts
        that changed since, or `"relaxed"`.

        Example: `sb = await Sandbox.restore("base", name="copy", memory=1024)`
        """
        _restore.check(snapshot, (Snapshot, SnapshotHandle), name, options)
        require_loop()
        return refuse_later("Sandbox.restore", SNAPSHOTS)

    @staticmethod
    @spelled_out(RestoreKeywords, external_mount_policy="strict")
    def restore_with_progress(
        snapshot: Snapshot | SnapshotHandle | Path, *, name: str, **options: Unpack[RestoreKeywords]
    ) -> PullSession:
        """As `restore`, with progress. `UnsupportedError` for now.

        Example: `session = Sandbox.restore_with_progress("base", name="copy")`
        """
        _restore.check(snapshot, (Snapshot, SnapshotHandle), name, options)
        raise unsupported("Sandbox.restore_with_progress", SNAPSHOTS)

    @staticmethod
    async def start(name: str, *, detached: bool = False, backend: BackendObject | None = None) -> Sandbox:
        """Boots a stopped or crashed sandbox with its stored configuration.

        Raises `SandboxNotFoundError`, `SandboxStillRunningError`, `BootStartError`.

        Example: `sb = await Sandbox.start("box")`
        """
        return await _opened(_microsandbox.start(name, detached, _backend.pick(backend)))

    @staticmethod
    async def get(name: str, *, backend: BackendObject | None = None) -> SandboxHandle:
        """The record of a sandbox in any state. Raises `SandboxNotFoundError`.

        Example: `print((await Sandbox.get("box")).status)`
        """
        return SandboxHandle(await run(_microsandbox.get(name, _backend.pick(backend))))

    @staticmethod
    async def list(*, backend: BackendObject | None = None) -> SandboxPage:
        """The first page of records: newest first, 20 entries.

        Example: `print([handle.name for handle in (await Sandbox.list()).sandboxes])`
        """
        return await Sandbox.list_with(backend=backend)

    @staticmethod
    async def list_with(
        *,
        cursor: str | None = None,
        limit: int | None = None,
        labels: Mapping[str, str] | None = None,
        backend: BackendObject | None = None,
    ) -> SandboxPage:
        """A page of records, newest first.

        `cursor` is `next_cursor` of the page before, `limit` 1 to 100 (20), and all `labels` must match; the filter
        precedes paging. A bad cursor or limit raises `InvalidConfigError`.

        Example: `page = await Sandbox.list_with(labels={"team": "data"}, limit=50)`
        """
        natives, following = await run(_microsandbox.list(cursor, limit, labels, _backend.pick(backend)))
        return SandboxPage([SandboxHandle(native) for native in natives], following)

    @staticmethod
    async def remove(name: str, *, backend: BackendObject | None = None) -> None:
        """Deletes a sandbox that does not run: record, disk and logs. Goes on if the wait is cancelled.

        Raises `SandboxNotFoundError`, `SandboxStillRunningError`.

        Example: `await Sandbox.remove("box")`
        """
        await run(_microsandbox.remove(name, _backend.pick(backend)))

    @property
    def name(self) -> AwaitableStr:
        """Name of the sandbox."""
        return AwaitableStr(self._live.name)

    @property
    def id(self) -> AwaitableStr:
        """Its identity: differs from that of a later sandbox of the same name."""
        return AwaitableStr(self._live.id)

    @property
    def owns_lifecycle(self) -> AwaitableBool:
        """Whether it ends with this process: True only after a local, attached `create` or `start`."""
        return AwaitableBool(self._live.owns_lifecycle)

    @property
    def boot_timings(self) -> tuple[BootStep, ...]:
        """Where the time of its boot went, in order; empty where this object did not boot it.

        Example: `print([(s.step, s.at_us) for s in sandbox.boot_timings])`
        """
        return self._live.boot_timings

    @property
    def fs(self) -> SandboxFsOps:
        """Its files."""
        return SandboxFsOps(self._live.fs())

    @eager
    @spelled_out(ExecKeywords)
    def exec(
        self, cmd: str, args: _List[str] | ExecOptions | None = None, **options: Unpack[ExecKeywords]
    ) -> Coroutine[Any, Any, ExecOutput]:
        """Runs a program, collects its output and waits. A non-zero exit is a result, not an error.

        `args` is a list of strings, or a mapping of `args` and the keywords below, whose values win. `env` is merged
        over the sandbox's, `timeout` is in seconds, `stdin` the bytes to send (nothing by default). With
        `max_output_bytes` the newest bytes of each stream are kept; without it more than 64 MiB is an
        `OutputLimitError`. Cancelling the wait kills the program.

        Raises `ExecTimeoutError` when `timeout` passes (the whole tree is killed first), `ExecFailedError` when
        nothing could be started, `SandboxNotRunningError` after the stop.

        Example: `out = await sb.exec("python3", ["-c", "print(1)"], timeout=10)`
        """
        return run(self._live.exec(cmd, _exec_request.request(args, options)))

    @eager
    @spelled_out(ExecKeywords)
    def exec_stream(
        self, cmd: str, args: _List[str] | ExecOptions | None = None, **options: Unpack[ExecKeywords]
    ) -> Coroutine[Any, Any, ExecHandle]:
        """Runs a program with live events; keywords and errors as for `exec`.

        Example: `async for event in await sb.exec_stream("ls"): ...`
        """
        return _running(self._live.exec_stream(cmd, _exec_request.request(args, options)))

    @eager
    @spelled_out(ExecKeywords)
    def shell(self, script: str, **options: Unpack[ExecKeywords]) -> Coroutine[Any, Any, ExecOutput]:
        """Runs a script with the sandbox's shell; keywords and errors as for `exec`.

        Work put in the background does not hold the call back: once the script has ended and its streams were silent
        for 0.1 s (after 2 s at the latest), later output goes to the log only.

        Example: `print((await sb.shell("echo $HOME | wc -c", timeout=10)).stdout_text)`
        """
        return run(self._live.shell(script, _exec_request.request(None, options)))

    @eager
    @spelled_out(ExecKeywords)
    def shell_stream(self, script: str, **options: Unpack[ExecKeywords]) -> Coroutine[Any, Any, ExecHandle]:
        """Runs a script with live events.

        Example: `async for event in await sb.shell_stream("make 2>&1"): print(event.data)`
        """
        return _running(self._live.shell_stream(script, _exec_request.request(None, options)))

    @eager
    @spelled_out(ExecKeywords)
    def exec_default(self, **options: Unpack[ExecKeywords]) -> Coroutine[Any, Any, ExecOutput]:
        """Runs the sandbox's ENTRYPOINT and CMD. Raises `NoDefaultCommandError` if it has neither.

        Example: `output = await sb.exec_default(timeout=60)`
        """
        return run(self._live.exec_default(_exec_request.request(None, options)))

    @eager
    @spelled_out(ExecKeywords)
    def exec_default_stream(self, **options: Unpack[ExecKeywords]) -> Coroutine[Any, Any, ExecHandle]:
        """Runs the sandbox's ENTRYPOINT and CMD with live events.

        Example: `process = await sb.exec_default_stream()`
        """
        return _running(self._live.exec_default_stream(_exec_request.request(None, options)))

    @eager
    @spelled_out(DetachedKeywords)
    def exec_detached(
        self, cmd: str, args: _List[str] | ExecOptions | None = None, **options: Unpack[DetachedKeywords]
    ) -> Coroutine[Any, Any, Job]:
        """Starts a program that runs on without this process, and returns once it runs. As `exec` otherwise.

        It ends with its sandbox at the latest, so make that one `detached` if it is to outlive this process. With
        `Stdin.pipe()` its input stays open for `Job.attach`. Raises `ExecFailedError` when nothing could be started.

        Example: `job = await sb.exec_detached("make", ["-j2"]); print((await job.wait()).code)`
        """
        native = self._live
        return _job(native, native.exec_detached(cmd, _exec_request.request(args, options, DetachedKeywords)))

    @eager
    @spelled_out(AttachKeywords)
    def attach(
        self, cmd: str, args: _List[str] | None = None, **options: Unpack[AttachKeywords]
    ) -> Coroutine[Any, Any, int]:
        """Binds this process's terminal to a program with a terminal of its own; its exit status (or 128 + signal).

        Keys go to the program as they are typed, the size of the window follows. `detach_keys`, `"ctrl-]"` unless said
        otherwise, `"ctrl-p,ctrl-q"` for two keys, gives the terminal back, leaves the program running and returns 0.
        The terminal's mode is restored on every way out. Where standard input is no terminal, the program gets pipes
        instead, and the end of ours is the end of its input.
        `MicrosandboxError` if the terminal cannot be set up; else as `exec_stream`.

        Example: `status = await sb.attach("python3")`
        """
        return _status(self._live.attach(cmd, *_exec_request.attachment(args, options)))

    @eager
    @spelled_out(AttachKeywords)
    def attach_default(self, **options: Unpack[AttachKeywords]) -> Coroutine[Any, Any, int]:
        """As `attach`, with the default command: ENTRYPOINT and CMD. Raises `NoDefaultCommandError`.

        Example: `status = await sb.attach_default()`
        """
        return _status(self._live.attach(None, *_exec_request.attachment(None, options)))

    @eager
    def attach_shell(self) -> Coroutine[Any, Any, int]:
        """As `attach`, with the sandbox's shell.

        Example: `status = await sb.attach_shell()`
        """
        return _status(self._live.attach_shell({}, None))

    async def metrics_stream(self, interval: float = 1.0) -> MetricsStream:
        """A sample now and one every `interval` seconds.

        Example: `async for sample in await sb.metrics_stream(0.5): print(sample.cpu_percent)`
        """
        return MetricsStream(await run(self._live.metrics_stream(interval)))

    async def status(self) -> SandboxStatus:
        """Its status now; one look at the record.

        Example: `print(await sb.status())`
        """
        return (await run(self._live.handle())).status

    async def drain(self) -> None:
        """The older name of `request_drain`.

        Example: `await sb.drain()`
        """
        await run(self._live.request_drain())

    @spelled_out(ModifyKeywords)
    async def modify(self, **options: Unpack[ModifyKeywords]) -> SandboxModificationPlan:
        """Changes a sandbox that exists: all of it or nothing. What it did, or with `dry_run` would do.

        Live are labels, `env` and `workdir` (for programs that start later) and, in a container, `cpus` and `memory`
        (MiB) up to their ceilings. The rest, `max_cpus` and `max_memory` too, waits for a start: NO_RESTART, the
        default policy, refuses it with `InvalidConfigError`, NEXT_START stores it, RESTART restarts the sandbox. A
        stopped one takes everything for its next start. `env_rm` and `labels_rm` take names away. Values of the
        environment are not in the plan. A memory limit below what is in use is a conflict.

        `root_disk_size`, `secrets` and `ports` are `UnsupportedError` for now.

        Example: `await sb.modify(memory=1024, labels={"owner": "me"})`
        """
        asked = _modify.request(options)
        handle = await run(self._live.handle())
        return _modify.plan(await run(handle.modify(asked)))

    @refused(SNAPSHOTS)
    async def restore_warnings(self) -> Sequence[ExternalMountWarning]:
        """Host mounts that changed since the snapshot. `UnsupportedError` for now.

        Example: `print([warning.guest_path for warning in await sb.restore_warnings()])`
        """

    def ssh(self) -> SandboxSshOps:
        """SSH to the sandbox. Its operations raise `UnsupportedError` for now.

        Example: `client = await sb.ssh().open_client()`
        """
        return SandboxSshOps()

    async def pause(self, *, guest_flush: GuestFlush | None = None) -> None:
        """Freezes all processes of the sandbox, or the processors of its virtual machine; memory is kept. Idempotent.

        Calls in flight wait, new ones raise `SandboxNotRunningError` (status PAUSED); `stop`,
        `kill` and `resume` work, and time limits keep running. `guest_flush` says whether the file systems of a
        virtual machine are written out first; nothing is lost without, and a container has none of its own.
        `UnsupportedError` where the host has no freezer of cgroup v2 (kernel documentation, cgroup-v2,
        "cgroup.freeze").

        Example: `await sb.pause(); await sb.resume()`
        """
        await _flush(self, guest_flush)
        handle = await run(self._live.handle())
        await run(handle.pause())

    async def resume(self) -> None:
        """Continues a paused sandbox where it was frozen. Idempotent.

        Example: `await sb.resume()`
        """
        handle = await run(self._live.handle())
        await run(handle.resume())

    async def restart(self, *, force: bool = False, timeout: float | None = None, detached: bool = False) -> Sandbox:
        """Stops (or kills) it and starts it again; the new connection.

        Example: `sb = await sb.restart()`
        """
        native = self._live
        await run(native.kill(timeout) if force else native.stop(STOP_TIMEOUT if timeout is None else timeout))
        handle = await run(native.handle())
        return await _opened(handle.start(detached))

    async def destroy(self, *, force: bool = False, timeout: float | None = None) -> None:
        """Stops (or kills) it and removes it. Raises `SandboxReplacedError` if its name means another sandbox by now.

        Example: `await sb.destroy(force=True)`
        """
        await run(self._live.destroy(force, timeout))

    async def wait_for_status(self, status: SandboxStatus) -> SandboxHandle:
        """Waits until `status` is seen.

        Example: `handle = await sb.wait_for_status(SandboxStatus.STOPPED)`
        """
        handle = await run(self._live.handle())
        return SandboxHandle(await run(handle.wait_for_status(status)))

    async def wait(self) -> tuple[int, bool]:
        """Waits for its end: exit status (0 for an orderly end where the backend knows none), and success.

        Example: `code, success = await sb.wait()`
        """
        result: SandboxStopResult = await run(self._live.wait_until_stopped())
        success = result.status is SandboxStatus.STOPPED
        code = result.exit_code
        if code is None:
            code = 0 if success else 1
        return code, success and code == 0

    async def stop_and_wait(self) -> tuple[int, bool]:
        """`stop`, then `wait`.

        Example: `code, success = await sb.stop_and_wait()`
        """
        await self.stop()
        return await self.wait()

    async def remove_persisted(self) -> None:
        """Removes its record and disk; the object is used up. Raises `SandboxStillRunningError`; on the cloud
        `UnsupportedError`, and the object stays usable.

        Example: `await sb.remove_persisted()`
        """
        if self._live.backend_kind == "cloud":
            raise unsupported("Sandbox::remove_persisted on cloud", "on the local backend; use Sandbox.remove(name)")
        handle = await run(self._live.handle())
        await run(handle.remove())
        self._consume()

    async def detach(self) -> None:
        """Gives up ownership: the sandbox keeps running after this process. The object cannot be used afterwards.

        Example: `await sb.detach()`
        """
        await run(self._live.detach())
        self._consume()

    async def __aenter__(self) -> Sandbox:
        _ = self._live
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._native is None:
            return
        native = self._consume()
        # Leaving the block must not hide the error that ended it; and a forked child leaves the sandbox alone.
        with contextlib.suppress(Exception):
            await run(native.destroy(True, None))

    def _repr_html_(self) -> str:
        from . import _notebook

        if self._native is None:
            return _notebook.card("sandbox", ("dim", "consumed"), ())
        rows = [("isolation", self.isolation), ("backend", self.backend_kind), ("id", str(self.id))]
        return _notebook.card(str(self.name), ("good", "connected"), rows)

    def __repr__(self) -> str:
        return "Sandbox(consumed)" if self._native is None else repr(self._native)


mark_eager(Sandbox.create, Sandbox.connect_or_create, Sandbox.restore)
