"""`microsandbox.sync`: the same names without await, from any thread, inside a running loop, under Ctrl-C."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import microsandbox
import pytest
from microsandbox import sync
from microsandbox.testing import MemoryBackend, ScriptResult

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def backend() -> MemoryBackend:
    memory = MemoryBackend()
    memory.script("slow", lambda call: ScriptResult(delay=30))
    memory.script("nap", lambda call: ScriptResult(delay=0.3))
    return memory


@pytest.fixture
def sandbox(backend: MemoryBackend) -> sync.Sandbox:
    return sync.Sandbox.create("box", image="host", backend=backend)


def test_the_twins_are_up_to_date() -> None:
    subprocess.run([sys.executable, ROOT / "python/tools/generate_faces.py", "--check"], check=True)


def test_the_names_are_the_same() -> None:
    assert sync.__all__ == microsandbox.__all__
    for name in sync.__all__:
        assert getattr(sync, name) is not None


def test_enums_values_and_errors_are_the_same_objects() -> None:
    for name in ("SandboxStatus", "Network", "ExecOutput", "MicrosandboxError", "LocalBackend", "Rlimit"):
        assert getattr(sync, name) is getattr(microsandbox, name)


@pytest.mark.parametrize(
    "name", ["Sandbox", "SandboxHandle", "SandboxFsOps", "ExecHandle", "Image", "Volume", "VolumeFs"]
)
def test_both_faces_have_the_same_methods_and_parameters(name: str) -> None:
    there, here = getattr(microsandbox, name), getattr(sync, name)
    renamed = {"__aenter__": "__enter__", "__aexit__": "__exit__", "__aiter__": "__iter__", "__anext__": "__next__"}
    for member, attribute in inspect.getmembers(there):
        if member.startswith("__") and member not in renamed:
            continue
        twin = getattr(here, renamed.get(member, member))
        if inspect.isfunction(attribute):
            assert list(inspect.signature(attribute).parameters) == list(inspect.signature(twin).parameters)
            assert not inspect.iscoroutinefunction(twin)


def test_a_sandbox_from_start_to_end(backend: MemoryBackend) -> None:
    with sync.Sandbox.create("box", image="host", backend=backend) as sandbox:
        assert type(sandbox.name) is str
        assert sandbox.owns_lifecycle is True
        assert sandbox.exec("echo", ["hi"]).stdout_text == "hi\n"
        kinds = [event.event_type.value for event in sandbox.exec_stream("echo", ["hi"])]
        assert kinds == ["started", "stdout", "exited"]
        with sandbox.fs.write_stream("/file") as sink:
            sink.write(b"abc")
        assert b"".join(sandbox.fs.read_stream("/file")) == b"abc"
        assert [handle.name for handle in sync.Sandbox.list(backend=backend).sandboxes] == ["box"]
    assert sync.Sandbox.list(backend=backend).sandboxes == []


def test_it_works_inside_a_running_loop(sandbox: sync.Sandbox) -> None:
    async def main() -> str:
        return sandbox.exec("echo", ["inside"]).stdout_text

    assert asyncio.run(main()) == "inside\n"


def test_threads_wait_at_the_same_time(sandbox: sync.Sandbox) -> None:
    """Eight sleeps of 0.3 s end together: no wait holds the interpreter lock."""
    results: list[bool] = []
    threads = [threading.Thread(target=lambda: results.append(sandbox.exec("nap").success)) for _ in range(8)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert results == [True] * 8
    assert time.monotonic() - started < 8 * 0.3


def test_ctrl_c_ends_a_wait(sandbox: sync.Sandbox) -> None:
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        sandbox.exec("slow")
    timer.join()
    assert sandbox.exec("true").success
