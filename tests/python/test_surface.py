"""The async face: names, signatures, coroutines, checks made by the call itself, traps of the surface."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
import warnings
from typing import Any

import microsandbox
import pytest
from microsandbox import (
    Image,
    InvalidConfigError,
    InvalidStateError,
    IoError,
    Isolation,
    LogLevel,
    Network,
    PullPolicy,
    Sandbox,
    SandboxNotFoundError,
    SandboxStatus,
    Stdin,
    UnsupportedError,
    Volume,
    VolumeKind,
    backend_scope,
)
from microsandbox.testing import MemoryBackend, ScriptCall, ScriptResult, faults

CREATE_KEYWORDS = [
    "image",
    "from_snapshot",
    "memory",
    "cpus",
    "max_memory",
    "max_cpus",
    "workdir",
    "shell",
    "security",
    "hostname",
    "user",
    "entrypoint",
    "cmd",
    "init",
    "replace",
    "replace_with_timeout",
    "max_duration",
    "idle_timeout",
    "ephemeral",
    "env",
    "rlimits",
    "labels",
    "scripts",
    "pull_policy",
    "log_level",
    "registry_auth",
    "registry_insecure",
    "registry_ca_certs",
    "volumes",
    "patches",
    "ports",
    "vsock",
    "network",
    "secrets",
    "on_secret_violation",
    "secret_violation_action",
    "intercept_tls",
    "detached",
    "cpu_placement",
    "placement_profile",
    "thp",
    "deployment_profile",
    "isolation",
    "backend",
]
EXEC_KEYWORDS = ["cwd", "user", "env", "timeout", "stdin", "tty", "rlimits", "max_output_bytes"]


@pytest.fixture
def backend() -> MemoryBackend:
    memory = MemoryBackend()
    memory.script("slow", lambda call: ScriptResult(delay=30))
    return memory


@pytest.fixture
async def sandbox(backend: MemoryBackend) -> Sandbox:
    return await Sandbox.create("box", image="host", backend=backend)


def test_every_public_name_is_listed_in_order_and_exists() -> None:
    assert microsandbox.__all__ == sorted(set(microsandbox.__all__))
    for name in microsandbox.__all__:
        assert getattr(microsandbox, name) is not None


def test_every_public_name_has_a_docstring() -> None:
    missing = []
    for name in microsandbox.__all__:
        value = getattr(microsandbox, name)
        if not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        if not inspect.getdoc(value):
            missing.append(name)
        for member, attribute in vars(value).items() if inspect.isclass(value) else []:
            public = not member.startswith("_") and (callable(attribute) or isinstance(attribute, property))
            if public and value.__module__.startswith("microsandbox") and not inspect.getdoc(getattr(value, member)):
                missing.append(f"{name}.{member}")
    assert not missing


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import microsandbox, sys; print(*sorted(m for m in sys.modules if m in %r or 'microsandbox.' in m))"
    heavy = ("asyncio", "dataclasses", "typing", "enum", "inspect")
    base = subprocess.run([sys.executable, "-c", "import sys; print(*sys.modules)"], capture_output=True, text=True)
    run = subprocess.run([sys.executable, "-c", code % (heavy,)], capture_output=True, text=True, check=True)
    assert set(run.stdout.split()) <= set(base.stdout.split())


@pytest.mark.parametrize("function", [Sandbox.create, Sandbox.create_with_progress, Sandbox.connect_or_create])
def test_create_shows_its_full_keyword_list(function: Any) -> None:
    parameters = list(inspect.signature(function).parameters.values())
    assert [p.name for p in parameters] == ["name", *CREATE_KEYWORDS]
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters[1:])


@pytest.mark.parametrize(
    "name", ["exec", "exec_stream", "shell", "shell_stream", "exec_default", "exec_default_stream"]
)
def test_exec_calls_show_their_full_keyword_list(name: str) -> None:
    parameters = inspect.signature(getattr(Sandbox, name)).parameters.values()
    assert [p.name for p in parameters if p.kind is p.KEYWORD_ONLY] == EXEC_KEYWORDS


@pytest.mark.skipif(sys.version_info < (3, 12), reason="older interpreters cannot mark a plain function")
def test_eager_calls_are_coroutine_functions() -> None:
    assert inspect.iscoroutinefunction(Sandbox.create)
    assert inspect.iscoroutinefunction(Sandbox.exec)


@pytest.mark.parametrize(
    ("option", "error", "text"),
    [
        ({"memory": True}, TypeError, "memory must be an int (MiB), not bool"),
        ({"memory": "512"}, TypeError, "memory must be an int (MiB), not str"),
        ({"memory": 0}, InvalidConfigError, "memory must be 8 to"),
        ({"memory": 2**63}, InvalidConfigError, "memory must be 8 to"),
        ({"cpus": 256}, InvalidConfigError, "cpus must be 1 to 255: got 256"),
        ({"cpus": -1}, InvalidConfigError, "cpus must be 1 to 255: got -1"),
        ({"max_cpus": 1, "cpus": 2}, InvalidConfigError, "max_cpus (1) is below cpus (2)"),
        ({"idle_timeout": -1}, ValueError, "idle_timeout must be non-negative"),
        ({"max_duration": float("nan")}, ValueError, "max_duration must be finite"),
        ({"replace_with_timeout": "1"}, TypeError, "replace_with_timeout must be a number of seconds"),
        ({"replace": 1}, TypeError, "replace must be bool, not int"),
        ({"hostname": "x" * 65}, InvalidConfigError, "hostname must be 1 to 64 bytes: got 65"),
        ({"entrypoint": "sh"}, TypeError, "entrypoint must be a list of strings, not str"),
        ({"env": {"A": 1}}, TypeError, "env must be a mapping of str to str"),
        ({"env": {"A=B": "c"}}, InvalidConfigError, "env:"),
        ({"volumes": {"/x": {"bind": "/tmp"}}}, TypeError, "must be MountConfig, not dict"),
        ({"patches": [{}]}, TypeError, "must be PatchConfig, not dict"),
        ({"secrets": [{}]}, TypeError, "must be SecretEntry, not dict"),
        ({"network": {}}, TypeError, "network must be Network, not dict"),
        ({"registry_auth": {}}, TypeError, "registry_auth must be RegistryAuth, not dict"),
        ({"registry_ca_certs": [b"", 1]}, TypeError, "registry_ca_certs[1] must be PEM bytes or a path"),
        ({"pull_policy": "sometimes"}, TypeError, "allowed: 'always', 'if-missing', 'never'"),
        ({"pull_policy": LogLevel.INFO}, TypeError, "pull_policy must be PullPolicy, not LogLevel"),
        ({"thp": "maybe"}, ValueError, "unknown transparent huge-page policy"),
        ({"init": {}}, ValueError, "init dict requires 'cmd'"),
        ({"init": 1}, TypeError, "init must be str, Mapping"),
        ({"image": None}, ValueError, "image= or from_snapshot= is required"),
        ({"image": 1}, TypeError, "image must be str, os.PathLike or ImageSource, not int"),
        ({"nonsense": 1}, TypeError, "unexpected keyword argument 'nonsense'"),
        ({"backend": "local"}, TypeError, "backend must be LocalBackend or CloudBackend, not str"),
    ],
)
def test_create_checks_its_arguments_in_the_call(option: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        Sandbox.create("box", **{"image": "host", **option})
    assert text in str(caught.value)


def test_the_value_of_an_enum_is_as_good_as_its_member(backend: MemoryBackend) -> None:
    async def main() -> None:
        await Sandbox.create("box", image="host", pull_policy="never", isolation="auto", backend=backend)
        await Sandbox.create(
            "box2", image="host", pull_policy=PullPolicy.NEVER, isolation=Isolation.AUTO, backend=backend
        )

    asyncio.run(main())


@pytest.mark.parametrize("function", [Sandbox.create, Sandbox.connect_or_create])
def test_making_a_sandbox_needs_a_running_loop(function: Any, backend: MemoryBackend) -> None:
    with pytest.raises(RuntimeError, match=r"no running event loop.*microsandbox\.sync"):
        function("box", image="host", backend=backend)


def test_other_calls_can_be_made_outside_a_loop(backend: MemoryBackend) -> None:
    with pytest.raises(SandboxNotFoundError):
        asyncio.run(Sandbox.get("absent", backend=backend))


async def test_every_call_gives_a_real_coroutine(sandbox: Sandbox, backend: MemoryBackend) -> None:
    for call in (sandbox.exec("true"), sandbox.fs.list("/"), sandbox.stop(), Sandbox.get("box", backend=backend)):
        assert inspect.iscoroutine(call)
        await asyncio.create_task(call)


async def test_a_coroutine_may_be_awaited_in_another_task(sandbox: Sandbox) -> None:
    call = sandbox.exec("echo", ["hi"])
    output = await asyncio.create_task(asyncio.wait_for(call, 10))
    assert output.stdout_text == "hi\n"


@pytest.mark.parametrize("option", [{"thp": "always"}, {"network": Network()}])
async def test_an_option_that_cannot_be_honoured_is_refused_by_name(option: Any, backend: MemoryBackend) -> None:
    with pytest.raises(UnsupportedError) as caught:
        await Sandbox.create("box", image="host", backend=backend, **option)
    assert caught.value.operation == f"create({next(iter(option))}=)"
    assert caught.value.hint
    assert str(caught.value) == f"{caught.value.operation} is not supported by this backend: {caught.value.hint}"


async def test_options_that_ask_for_what_there_is_are_accepted(backend: MemoryBackend) -> None:
    await Sandbox.create(
        "box",
        image="host",
        network=Network.none(),
        max_cpus=1,
        cpus=1,
        volumes={},
        ports=[],
        patches=(),
        backend=backend,
    )


async def test_name_id_and_ownership_may_be_awaited_called_or_read(sandbox: Sandbox) -> None:
    assert sandbox.name == "box"
    assert type(await sandbox.name) is str
    assert await sandbox.name() == "box"
    assert await sandbox.id == sandbox.id
    assert (await sandbox.owns_lifecycle) is True
    assert sandbox.owns_lifecycle


async def test_exec_options_as_a_mapping_win_over_keywords(sandbox: Sandbox) -> None:
    options = {"args": ["-c", "cat; echo $A"], "env": {"A": "mapping"}, "stdin_data": b"in\n"}
    output = await sandbox.exec("sh", options, env={"A": "keyword"})  # type: ignore[arg-type]
    assert output.stdout_text == "in\nmapping\n"


@pytest.mark.parametrize(
    ("args", "keywords", "text"),
    [
        ({"nonsense": 1}, {}, "unknown exec option: nonsense"),
        ("-c", {}, "args must be a list of strings"),
        ([1], {}, "args must be a list of strings"),
        (None, {"stdin": "text"}, "stdin must be Stdin"),
        (None, {"rlimits": [(1, 2)]}, "rlimit must be Rlimit"),
        (None, {"timeout": "1"}, "timeout must be a number of seconds"),
    ],
)
async def test_exec_checks_its_arguments_in_the_call(sandbox: Sandbox, args: Any, keywords: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        sandbox.exec("true", args, **keywords)


async def test_a_pipe_makes_no_sense_while_exec_waits(sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match="needs a streaming call"):
        sandbox.exec("cat", stdin=Stdin.pipe())


async def test_cancelling_the_wait_ends_the_program(sandbox: Sandbox) -> None:
    task = asyncio.create_task(sandbox.exec("slow"))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)


async def test_a_cancelled_stop_still_completes(sandbox: Sandbox, backend: MemoryBackend) -> None:
    task = asyncio.create_task(sandbox.stop())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    handle = await Sandbox.get("box", backend=backend)
    await asyncio.wait_for(handle.wait_until_stopped(), 10)


async def test_a_used_up_sandbox_says_so(backend: MemoryBackend) -> None:
    async with await Sandbox.create("box", image="host", backend=backend) as sandbox:
        pass
    with pytest.raises(RuntimeError, match="sandbox has been consumed"):
        sandbox.exec("true")
    with pytest.raises(RuntimeError, match="sandbox has been consumed"):
        _ = sandbox.name
    with pytest.raises(SandboxNotFoundError):
        await Sandbox.get("box", backend=backend)


async def test_leaving_the_block_hides_no_error_and_raises_none(backend: MemoryBackend) -> None:
    with pytest.raises(ZeroDivisionError):
        async with await Sandbox.create("box", image="host", backend=backend) as sandbox:
            await (await Sandbox.get("box", backend=backend)).kill()
            await Sandbox.remove("box", backend=backend)
            assert sandbox
            raise ZeroDivisionError


async def test_the_pages_of_a_list(backend: MemoryBackend) -> None:
    for index in range(3):
        await Sandbox.create(f"box{index}", image="host", labels={"n": str(index)}, backend=backend)
    page = await Sandbox.list_with(limit=2, backend=backend)
    assert [handle.name for handle in page.sandboxes] == ["box2", "box1"]
    rest = await Sandbox.list_with(limit=2, cursor=page.next_cursor, backend=backend)
    assert [handle.name for handle in rest.sandboxes] == ["box0"]
    assert rest.next_cursor is None
    with pytest.raises(InvalidConfigError, match="limit must be 1 to 100"):
        await Sandbox.list_with(limit=101, backend=backend)


async def test_a_handle_is_a_snapshot(sandbox: Sandbox, backend: MemoryBackend) -> None:
    handle = await Sandbox.get("box", backend=backend)
    assert handle.status is SandboxStatus.RUNNING
    await sandbox.stop()
    assert handle.status is SandboxStatus.RUNNING
    assert (await handle.refresh()).status is SandboxStatus.STOPPED
    assert handle.config()["resources"]["memory_mib"] == 512
    assert handle.status_snapshot is handle.status


async def test_a_scope_is_seen_by_tasks_made_inside_only(backend: MemoryBackend) -> None:
    other = MemoryBackend()
    await Sandbox.create("inside", image="host", backend=backend)
    with backend_scope(other):
        outside = asyncio.create_task(Sandbox.list())
        with backend_scope(backend):
            inside = asyncio.create_task(Sandbox.list())
            assert [h.name for h in (await Sandbox.list()).sandboxes] == ["inside"]
        assert (await Sandbox.list()).sandboxes == []
        assert [h.name for h in (await inside).sandboxes] == ["inside"]
        assert (await outside).sandboxes == []


async def test_injected_faults_and_scripts(sandbox: Sandbox, backend: MemoryBackend) -> None:
    calls: list[ScriptCall] = []

    def handler(call: ScriptCall) -> ScriptResult:
        calls.append(call)
        return ScriptResult(stdout=call.stdin, exit_code=4)

    backend.script("mine", handler)
    output = await sandbox.exec("mine", ["a"], stdin=b"x")
    assert (output.exit_code, output.stdout_bytes, output.success) == (4, b"x", False)
    assert calls[0].args == ["a"]
    faults(backend, exec=[IoError("first"), IoError("second")])
    for text in ("first", "second"):
        with pytest.raises(IoError, match=text):
            await sandbox.exec("true")
    assert (await sandbox.exec("true")).success


async def test_creating_with_progress_gives_one_result(backend: MemoryBackend) -> None:
    session = Sandbox.create_with_progress("box", image="host", backend=backend)
    assert [event async for event in session.progress] == []
    sandbox = await session.result()
    assert sandbox.name == "box"
    with pytest.raises(RuntimeError, match="already consumed"):
        await session.result()


async def test_what_is_not_there_yet_says_when(sandbox: Sandbox, backend: MemoryBackend) -> None:
    for call in (
        sandbox.modify(cpus=2),
        sandbox.fork("x"),
        sandbox.compact(),
        sandbox.pause(),
        Volume.get_default(backend=backend),
        (await Sandbox.get("box", backend=backend)).snapshot("x"),
    ):
        with pytest.raises(UnsupportedError) as caught:
            await call
        assert caught.value.operation
        assert caught.value.hint


def test_volume_arguments_are_checked_in_the_call() -> None:
    for options in ({"kind": VolumeKind.DISK}, {"size_mib": 1}, {"kind": "disk", "size_mib": 1, "quota_mib": 1}):
        with pytest.raises(ValueError):
            Volume.create("v", **options)  # type: ignore[arg-type]


def test_image_factories() -> None:
    assert Image.oci("alpine")._reference == "alpine"
    assert Image.bind("/x")._path == "/x"
    assert Image.disk("/x.qcow2")._format == "qcow2"
    with pytest.raises(ValueError, match="qcow2, raw or vmdk"):
        Image.disk("/x.iso")
    with pytest.raises(ValueError, match="give one"):
        Image.oci("a", root_disk=1, upper_size_mib=1)
    with pytest.raises(TypeError, match="RootDiskConfig"):
        Image.oci("a", root_disk=True)
    with pytest.warns(DeprecationWarning, match="root_disk="):
        Image.oci("a", upper_size_mib=1)


def test_an_old_spelling_warns_at_the_line_of_the_caller(backend: MemoryBackend) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(RuntimeError):
            Sandbox.create("box", from_snapshot="s", backend=backend)
    assert [w.filename for w in caught if w.category is DeprecationWarning] == [__file__]


async def test_a_forked_child_refuses_its_parents_objects(sandbox: Sandbox) -> None:
    """In a process of its own, because this one has threads."""
    code = """
import os, sys
from microsandbox import InvalidStateError
from microsandbox.sync import Sandbox
from microsandbox.testing import MemoryBackend
box = Sandbox.create("box", image="host", backend=MemoryBackend())
assert box.exec("echo", ["1"]).success
pid = os.fork()
if pid == 0:
    try:
        box.exec("echo", ["2"])
    except InvalidStateError:
        own = Sandbox.create("own", image="host", backend=MemoryBackend())
        del box
        os._exit(0 if own.exec("echo", ["3"]).success else 2)
    os._exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert box.exec("echo", ["4"]).success
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert InvalidStateError.code == "invalid-state"


@pytest.mark.parametrize("how", ["pass", "import os; os.kill(os.getpid(), 2)", "raise SystemExit(0)"])
def test_the_interpreter_ends_with_work_in_flight(how: str) -> None:
    code = f"""
import asyncio
from microsandbox import Sandbox
from microsandbox.testing import MemoryBackend, ScriptResult
backend = MemoryBackend()
backend.script("slow", lambda call: ScriptResult(delay=60))
async def main():
    box = await Sandbox.create("box", image="host", backend=backend)
    tasks = [asyncio.create_task(box.exec("slow")) for _ in range(8)]
    await asyncio.sleep(0.1)
    {how}
asyncio.run(main())
"""
    run = subprocess.run([sys.executable, "-c", code], timeout=60, capture_output=True, text=True, env=dict(os.environ))
    assert "panicked" not in run.stderr
    assert run.returncode in (0, -2, 130)


def test_a_container_by_fallback_is_announced_once() -> None:
    """The notice of `Isolation.AUTO`, with a stand-in for the native sandbox: what it says does not need a real one."""
    code = """
import asyncio, warnings
from microsandbox import Isolation, IsolationWarning, Sandbox, _create, _microsandbox
from microsandbox._isolation import notice
from microsandbox._runtime import make
from microsandbox.testing import MemoryBackend

class Native:
    isolation, asked_isolation = Isolation.CONTAINER, "auto"
    def __init__(self, real): self.backend = real.backend

async def main():
    backend = MemoryBackend()
    natives = []
    async def as_a_container(made):
        natives.append(Native(made))
        await notice(natives[0])
    warnings.simplefilter("error")
    call = _create.call(_microsandbox.create, "box", {"image": "host", "backend": backend})
    try:
        await make(call, as_a_container)
    except IsolationWarning as warning:
        assert "msb doctor" in str(warning) and "Isolation.CONTAINER" in str(warning)
    else:
        raise AssertionError("no warning")
    assert (await Sandbox.list(backend=backend)).sandboxes == []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        await notice(natives[0])
        await notice(natives[0])
    assert [w.category for w in caught] == [IsolationWarning]

asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
