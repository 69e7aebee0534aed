"""`microsandbox.sync`: the same behaviour without await, also inside a running loop and from threads."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from backends import Harness, speaker
from microsandbox import SandboxNotFoundError, SandboxStatus, sync
from pace import within


def make(harness: Harness, name: str = "box", **options: Any) -> Any:
    harness.created.append(name)
    return sync.Sandbox.create(name, image="host", backend=harness.backend, **options)


def whole_life(harness: Harness) -> None:
    with make(harness) as box:
        assert box.name == "box" and type(box.name) is str
        assert box.owns_lifecycle is harness.has("ownership")
        box.fs.mkdir("/tmp/d")
        box.fs.write("/tmp/d/f", b"text")
        assert box.fs.read_text("/tmp/d/f") == "text"
        assert [e.path for e in box.fs.list("/tmp/d")] == ["/tmp/d/f"]
        assert b"".join(box.fs.read_stream("/tmp/d/f")) == b"text"
        with box.fs.write_stream("/tmp/d/g") as sink:
            sink.write(b"streamed")
        assert box.fs.read("/tmp/d/g") == b"streamed"
        if harness.has("metrics"):
            assert box.metrics().memory_limit_bytes > 0
        assert sync.Sandbox.get("box", backend=harness.backend).status is SandboxStatus.RUNNING
    with pytest.raises(SandboxNotFoundError):
        sync.Sandbox.get("box", backend=harness.backend)


async def test_inside_a_running_loop(harness: Harness) -> None:
    whole_life(harness)


async def test_in_a_thread(harness: Harness) -> None:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            whole_life(harness)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(within(60))
    assert not thread.is_alive()
    assert not failures, failures


async def test_exec_and_streams(harness: Harness) -> None:
    greet = speaker("hello\n", code=2)
    with make(harness) as box:
        output = box.exec(*greet)
        assert (output.stdout_text, output.exit_code) == ("hello\n", 2)
        handle = box.exec_stream(*greet)
        data = b"".join(e.data for e in handle if e.data)
        assert data == b"hello\n"
        assert any("hello" in entry.text() for entry in box.logs())


async def test_stop_start_remove(harness: Harness) -> None:
    box = make(harness)
    box.stop()
    again = sync.Sandbox.start("box", backend=harness.backend)
    again.stop()
    sync.Sandbox.remove("box", backend=harness.backend)
    assert sync.Sandbox.list(backend=harness.backend).sandboxes == []
