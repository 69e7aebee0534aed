"""Event loops and interpreters as programs have them: uvloop, anyio, trio, threads that end, sub-interpreters, pre-fork servers."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from clients import said_by
from pace import within

HEAD = """
import asyncio, os, random, subprocess, sys, threading, time, warnings
warnings.simplefilter("ignore")
from microsandbox import *
from microsandbox import sync
"""


def lines_of(text: str, *needed: str) -> list[str]:
    for package in needed:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    return said_by("-c", HEAD + text, MSB_ISOLATION="container").splitlines()


ON_UVLOOP = """
import uvloop
async def main():
    async with await Sandbox.create("box", image="host") as box:
        print((await box.exec("echo", ["one"])).stdout_text.strip())
        handle = await box.exec_stream("sh", ["-c", "echo two; echo three >&2"])
        print(len([event async for event in handle if event.data]))
        print(len(await asyncio.gather(*(box.shell(f"echo {n}") for n in range(20)))))
        try:
            await asyncio.wait_for(box.exec("sleep", ["60"]), 0.2)
        except asyncio.TimeoutError:
            print("timeout")
    for _ in range(20):
        task = asyncio.create_task(Sandbox.create("cut", image="host"))
        await asyncio.sleep(random.random() * 0.02)
        task.cancel()
        try:
            await (await task).destroy(force=True)
        except asyncio.CancelledError:
            pass
        assert (await Sandbox.list()).sandboxes == []
uvloop.run(main())
"""


def test_everything_works_on_uvloop(home: Path) -> None:
    assert lines_of(ON_UVLOOP, "uvloop") == ["one", "2", "20", "timeout"]


ON_ANYIO = """
import anyio
async def main():
    for turn in range(20):
        box = None
        # A scope of anyio cancels again and again until the task has left it.
        with anyio.move_on_after(0.001 * turn):
            box = await Sandbox.create("cut", image="host")
        if box is not None:
            await box.destroy(force=True)
        assert (await Sandbox.list()).sandboxes == [], turn
    async with await Sandbox.create("box", image="host") as box:
        async with anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(box.shell, f"echo {number}")
        with anyio.move_on_after(0.2) as scope:
            await box.exec("sleep", ["60"])
        print(scope.cancelled_caught, (await box.exec("echo", ["still"])).stdout_text.strip())
anyio.run(main, backend="asyncio")
"""


def test_scopes_of_anyio_cancel_cleanly(home: Path) -> None:
    assert lines_of(ON_ANYIO, "anyio") == ["True still"]


ON_TRIO = """
import trio
async def main():
    for call in (lambda: Sandbox.create("box", image="host"), Sandbox.list, lambda: Sandbox.get("box")):
        try:
            await call()
        except RuntimeError as error:
            print("trio" in str(error) and "microsandbox.sync" in str(error))
    def work():
        with sync.Sandbox.create("box", image="host") as box:
            return box.shell("echo thread").stdout_text.strip()
    print(await trio.to_thread.run_sync(work))
trio.run(main)
"""


def test_trio_is_told_what_to_use(home: Path) -> None:
    assert lines_of(ON_TRIO, "trio") == ["True", "True", "True", "thread"]


THREADS = """
made = []
maker = threading.Thread(target=lambda: made.append(sync.Sandbox.create("box", image="host")))
maker.start()
maker.join()
# The kernel can tie a child to the thread that started it; a sandbox belongs to the process.
time.sleep(0.5)
[box] = made
print(box.shell("echo alive").stdout_text.strip())
users = [threading.Thread(target=box.shell, args=("true",)) for _ in range(20)]
for user in users: user.start()
for user in users: user.join()
print(subprocess.run(["/bin/ls", "/proc/self/fd"], close_fds=False, capture_output=True, text=True).stdout.split())
box.destroy(force=True)
"""


def test_a_sandbox_outlives_the_thread_that_made_it(home: Path) -> None:
    alive, inherited = lines_of(THREADS)
    assert alive == "alive"
    # Standard streams, and the directory that ls reads: nothing of the library's reaches a child.
    assert inherited == "['0', '1', '2', '3']"


SUBINTERPRETER = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
with sync.Sandbox.create("box", image="host") as box:
    box.shell("true")
    code = '''
try:
    from microsandbox import sync
    sync.Sandbox
    print("loaded")
except ImportError as error:
    print("another interpreter" in str(error) or "subinterpreters" in str(error))
'''
    failed = interpreters.run_string(interpreters.create(), code)
    assert failed is None, failed
    sys.stdout.flush()
    print(box.shell("echo still").stdout_text.strip())
"""


def test_a_second_interpreter_is_refused_by_name(home: Path) -> None:
    assert lines_of(SUBINTERPRETER) == ["True", "still"]


SERVED = """
import os, warnings
warnings.simplefilter("ignore")
from microsandbox import sync
# Before the workers are forked.
with sync.Sandbox.create("preloaded", image="host") as box:
    box.shell("true")
def app(environ, start):
    with sync.Sandbox.create(f"box-{os.getpid()}", image="host") as box:
        text = box.shell("echo served").stdout_text.strip()
    start("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {text}".encode()]
"""


def test_workers_of_a_pre_fork_server_work(home: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("gunicorn") is None:
        pytest.skip("gunicorn is not installed")
    (tmp_path / "served.py").write_text(SERVED)
    socket = home / "s"
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "--preload",
        "--workers",
        "2",
        "--bind",
        f"unix:{socket}",
        "served:app",
    ]
    log = (tmp_path / "log").open("w")
    server = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env={**os.environ, "MSB_ISOLATION": "container"},
    )
    try:
        deadline = time.monotonic() + within(30)
        while not socket.exists():
            assert server.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.05)
        ask = ["curl", "--silent", "--max-time", str(within(20)), "--unix-socket", str(socket), "http://localhost/"]
        answers = [subprocess.run(ask, capture_output=True, text=True).stdout.split() for _ in range(8)]
        assert {words[-1] for words in answers} == {"served"}, answers
        assert str(server.pid) not in {words[0] for words in answers}
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(within(20))
        log.close()
