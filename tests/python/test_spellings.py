"""Old spellings that still work (surface section 27), and names whose work comes later (sections 12, 18, 22)."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import microsandbox
import pytest
from microsandbox import (
    Image,
    LocalBackend,
    Network,
    Sandbox,
    SandboxHandle,
    Secret,
    SecretInjection,
    SecretSubstitution,
    Snapshot,
    SnapshotHandle,
    SshClient,
    UnsupportedError,
    ViolationAction,
    ViolationPolicy,
    Volume,
    sync,
)
from microsandbox.testing import MemoryBackend

BLOCK, LOG, END = ViolationAction.BLOCK, ViolationAction.BLOCK_AND_LOG, ViolationAction.BLOCK_AND_TERMINATE
PASSTHROUGH = ViolationAction.PASSTHROUGH


@pytest.fixture
def backend() -> MemoryBackend:
    return MemoryBackend()


@pytest.fixture
async def sandbox(backend: MemoryBackend) -> Sandbox:
    return await Sandbox.create("box", image="host", backend=backend)


secret = partial(Secret.env, "KEY", value="v", allow=("api.example",))


OLD: list[tuple[Callable[[], Any], str]] = [
    (lambda: Network(on_secret_violation=BLOCK), "secret_violation_action="),
    (lambda: Network(max_connections=3), "max_tcp_connections="),
    (lambda: secret(allow_hosts=["a.example"]), "allow="),
    (lambda: secret(allow_host_patterns=["*.example"]), "allow= with *.suffix"),
    (lambda: secret(require_tls=False), "require_tls_identity="),
    (lambda: secret(on_violation=BLOCK), "violation_action="),
    (lambda: secret(injection=SecretInjection(query_params=True)), "substitution="),
    (lambda: secret(passthrough=["a.example"]), "allow_placeholder_for="),
    (lambda: ViolationPolicy.passthrough(hosts=["a.example"]), "allow_placeholder_for="),
    (lambda: secret(violation_action=PASSTHROUGH), "allow_placeholder_for="),
    (lambda: Network(secret_violation_action=PASSTHROUGH), "allow_placeholder_for="),
    (lambda: Image.oci("a", upper_size_mib=1), "root_disk="),
    (lambda: microsandbox.install(), "install_runtime()"),
    (lambda: microsandbox.is_installed(), "is_runtime_installed()"),
    (lambda: Snapshot.create("s", from_sandbox="box", resumable=True).close(), "full="),
]


@pytest.mark.parametrize(("call", "newer"), OLD, ids=[newer for _, newer in OLD])
def test_an_old_spelling_warns_at_the_callers_line(call: Callable[[], Any], newer: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    (warning,) = [w for w in caught if w.category is DeprecationWarning]
    assert newer in str(warning.message)
    assert warning.filename == __file__
    assert warning.lineno == call.__code__.co_firstlineno


async def test_old_spellings_of_calls_on_a_sandbox(sandbox: Sandbox, backend: MemoryBackend) -> None:
    handle = await Sandbox.get("box", backend=backend)
    for call, newer in (
        (lambda: sandbox.branch("x"), "fork()"),
        (lambda: handle.branch_many(["x"]), "fork_many()"),
        (lambda: Sandbox.restore("base", name="x", forked=True), "cow_memory="),
        (
            lambda: Sandbox.create("x", image="host", on_secret_violation=BLOCK, backend=backend),
            "secret_violation_action",
        ),
    ):
        with pytest.warns(DeprecationWarning, match=newer.replace("()", r"\(\)")) as caught:
            coroutine = call()
        assert {w.filename for w in caught} == {__file__}
        assert inspect.iscoroutine(coroutine)
        with pytest.raises(UnsupportedError):
            await coroutine


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_contradicting_spellings_are_refused(
    backend: MemoryBackend,
) -> None:
    for call in (
        lambda: Network(max_connections=3, max_tcp_connections=4),
        lambda: Network(on_secret_violation=BLOCK, secret_violation_action=END),
        lambda: secret(on_violation=BLOCK, violation_action=LOG),
        lambda: secret(injection=SecretInjection(), substitution=SecretSubstitution()),
        lambda: Image.oci("a", root_disk=1, upper_size_mib=1),
        lambda: Sandbox.create(
            "x", image="host", on_secret_violation=BLOCK, secret_violation_action=END, backend=backend
        ),
    ):
        with pytest.raises(ValueError, match="give one"):
            call()
    assert Network(max_connections=3, max_tcp_connections=3).max_tcp_connections == 3
    entry = secret(allow_hosts=["b.example"], allow_host_patterns=["*.c.example"])
    assert entry.allow == ("api.example", "b.example", "*.c.example")
    assert entry.allow_hosts == ("api.example", "b.example")
    assert entry.allow_host_patterns == ("*.c.example",)


async def test_restoring_checks_its_arguments_in_the_call(sandbox: Sandbox) -> None:
    for options, error, text in (
        ({"cpus": 0}, ValueError, "cpus must be 1 to 255"),
        ({"memory": True}, TypeError, "memory must be int"),
        ({"idle_timeout": -1}, ValueError, "idle_timeout must be non-negative"),
        ({"security": "strong"}, TypeError, "security must be SecurityProfile"),
        ({"external_mount_policy": "lax"}, ValueError, "'strict' or 'relaxed'"),
    ):
        with pytest.raises(error, match=text):
            Sandbox.restore("base", name="x", **options)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="snapshot must be"):
        Sandbox.restore(7, name="x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        Sandbox.restore("base", name="x", cpu=1)  # type: ignore[call-arg]
    with pytest.raises(UnsupportedError, match="when snapshots land"):
        await Sandbox.restore("base", name="x", cpus=2, memory=1024)


def test_restoring_needs_a_running_loop() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        Sandbox.restore("base", name="x")


async def test_ssh_and_snapshots_say_when_they_come(sandbox: Sandbox) -> None:
    ssh = sandbox.ssh()
    for timeout in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="finite and non-negative"):
            await ssh.open_client(inactivity_timeout=timeout)
    for call in (ssh.open_client(), ssh.prepare_server(), Snapshot.list(), Snapshot.open("x")):
        with pytest.raises(UnsupportedError, match="when ") as caught:
            await call
        assert caught.value.operation and caught.value.hint
    for kind in (SshClient, Snapshot, SnapshotHandle):
        with pytest.raises(UnsupportedError):
            kind()


def test_no_name_of_the_blocking_face_is_a_coroutine() -> None:
    waits = []
    for name in sync.__all__:
        thing = getattr(sync, name)
        members = inspect.getmembers(thing, inspect.iscoroutinefunction) if inspect.isclass(thing) else []
        waits += [f"{name}.{member}" for member, _ in members if not member.startswith("_")]
        if inspect.iscoroutinefunction(thing):
            waits.append(name)
    assert waits == []
    assert sync.ensure_runtime() == microsandbox.resolve_runtime()
    assert SandboxHandle is not sync.SandboxHandle


async def test_calls_that_need_snapshots_are_refused_by_name(sandbox: Sandbox, backend: MemoryBackend) -> None:
    handle = await Sandbox.get("box", backend=backend)
    for call, operation in (
        (sandbox.restore_warnings, "Sandbox.restore_warnings"),
        (partial(handle.fork, "copy", volumes={}), "SandboxHandle.fork"),
    ):
        with pytest.raises(UnsupportedError) as caught:
            await call()
        assert caught.value.operation == operation
    with pytest.raises(TypeError, match="unexpected keyword argument 'volume'"):
        await sandbox.fork("copy", volume={})  # type: ignore[call-arg]
    with pytest.raises(UnsupportedError, match="restore_with_progress"):
        Sandbox.restore_with_progress("base", name="x")


@pytest.mark.parametrize(
    ("call", "near"),
    [
        (lambda: Sandbox.create("x", snapshot="base"), "from_snapshot"),
        (lambda: Volume.bind("/srv", read_only=True), "readonly"),
        (lambda: LocalBackend(hom="/x"), "home"),
    ],
)
def test_an_unknown_keyword_is_refused_with_a_suggestion(call: Callable[[], Any], near: str) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument") as caught:
        call()
    assert near in str(caught.value)
