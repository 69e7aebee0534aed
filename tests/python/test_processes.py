"""Worker processes of a program that uses sandboxes: `multiprocessing` by every way of starting them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from clients import said_by
from pace import within

PROGRAM = """
import asyncio, multiprocessing, os, sys, warnings
warnings.simplefilter("ignore")
from concurrent.futures import ProcessPoolExecutor
import microsandbox
from microsandbox import sync

def work(number):
    # One of its own, made and gone here; and the parent's, found by its name.
    with sync.Sandbox.create(f"own-{number}", image="host") as own:
        mine = own.shell(f"echo {number}").stdout_text.strip()
    shared = sync.Sandbox.get("parent").connect().shell("echo shared").stdout_text.strip()
    return os.getpid(), mine, shared

async def in_the_loop():
    # A pool beside a running loop, whose sandbox was made in it.
    async with await microsandbox.Sandbox.create("loop", image="host") as box:
        context = multiprocessing.get_context(sys.argv[1])
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            found = await asyncio.get_running_loop().run_in_executor(pool, work, 9)
        return found[1:], (await box.exec("echo", ["still"])).stdout_text.strip()

if __name__ == "__main__":
    with sync.Sandbox.create("parent", image="host") as parent:
        parent.shell("true")
        with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
            found = pool.map(work, range(4), chunksize=1)
            pool.close()
            pool.join()
        assert os.getpid() not in {pid for pid, _, _ in found}
        print([words for _, *words in found])
        print(asyncio.run(in_the_loop()))
        print(parent.shell("echo alive").stdout_text.strip())
        print([handle.name for handle in sync.Sandbox.list().sandboxes])
"""


def run_program(tmp_path: Path, text: str, *arguments: str, before: tuple[str, ...] = ()) -> str:
    program = tmp_path / "program.py"
    program.write_text(text)
    return said_by(program, *arguments, before=before, MSB_ISOLATION="container")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_make_find_and_leave_sandboxes(home: Path, tmp_path: Path, method: str) -> None:
    assert run_program(tmp_path, PROGRAM, method).splitlines() == [
        "[['0', 'shared'], ['1', 'shared'], ['2', 'shared'], ['3', 'shared']]",
        "(('9', 'shared'), 'still')",
        "alive",
        "['parent']",
    ]


ZOMBIES = """
import os, time, warnings
warnings.simplefilter("ignore")
from microsandbox import sync, MicrosandboxError
assert os.getpid() == 1
def zombies():
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            name, rest = open(f"/proc/{pid}/stat").read().split(") ", 1)
        except OSError:
            continue
        if rest.startswith("Z"):
            found.append(name)
    return found
for _ in range(4):
    with sync.Sandbox.create("one", image="host") as box:
        box.shell("true")
sync.Sandbox.create("two", image="host", detached=True).destroy(force=True)
box = sync.Sandbox.create("three", image="host"); box.stop(); sync.Sandbox.remove("three")
box = sync.Sandbox.create("four", image="host"); box.pause(); box.kill(); sync.Sandbox.remove("four")
# Its runtime is killed by somebody else: the caller is its first process's parent then, and takes it in when it looks.
import json, signal
box = sync.Sandbox.create("five", image="host")
home = os.environ["MSB_HOME"]
os.kill(json.load(open(f"{home}/sandboxes/five/runtime/identity.json"))["runtime"]["pid"], signal.SIGKILL)
box.wait_until_stopped(); sync.Sandbox.remove("five")
try:
    sync.Sandbox.create("six", image="host", init="/no/such/init")
except MicrosandboxError:
    pass
deadline = time.monotonic() + 5
while zombies() and time.monotonic() < deadline:
    time.sleep(0.02)
print(zombies())
"""


@pytest.mark.root
def test_a_caller_that_is_process_one_is_left_no_zombies(home: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: a process namespace of its own")
    assert run_program(tmp_path, ZOMBIES, before=("unshare", "-p", "-f", "--mount-proc")) == "[]\n"


DAEMON = """
import os, subprocess, sys, time, warnings
warnings.simplefilter("ignore")
from microsandbox import sync
home = os.environ["MSB_HOME"]
with sync.Sandbox.create("before", image="host") as box:
    box.shell("true")
said, parent = f"{home}/said", os.getpid()
if os.fork() == 0:
    os.setsid()
    for number in range(3):
        os.dup2(os.open("/dev/null", os.O_RDWR), number)
    if os.fork():
        os._exit(0)
    while os.path.exists(f"/proc/{parent}"):
        time.sleep(0.01)
    text = "nothing"
    if sys.argv[1] == "closes":
        os.closerange(3, 1024)
        # Files of its own take the numbers of the library's.
        mine = [open(f"{home}/mine-{number}", "w+") for number in range(40)]
        for number, file in enumerate(mine):
            file.write(str(number)); file.flush()
    try:
        with sync.Sandbox.create("after", image="host") as box:
            text = box.shell("echo worked").stdout_text.strip()
        # Another process comes and goes: it must not take itself for the last one with the database.
        look = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM sandbox').fetchall(); c.close()"
        subprocess.run([sys.executable, "-c", look, f"{home}/db/msb.db"], check=True)
        with sync.Sandbox.create("later", image="host") as box:
            text += " " + box.shell("echo again").stdout_text.strip()
        if sys.argv[1] == "closes":
            for number, file in enumerate(mine):
                file.seek(0)
                assert file.read() == str(number), number
    except BaseException as error:
        text = f"{type(error).__name__}: {error}"
    open(said + ".new", "w").write(text)
    os.rename(said + ".new", said)
    os._exit(0)
"""


@pytest.mark.parametrize("way", ["closes", "keeps"])
def test_a_daemon_starts_the_library_anew(home: Path, tmp_path: Path, way: str) -> None:
    run_program(tmp_path, DAEMON, way)
    deadline = time.monotonic() + within(30)
    while not (home / "said").exists():
        assert time.monotonic() < deadline, "the daemon says nothing"
        time.sleep(0.02)
    assert (home / "said").read_text() == "worked again"


LAST_WORDS = """
import atexit, warnings
warnings.simplefilter("ignore")
from microsandbox import MicrosandboxError, sync
class Held:
    def __init__(self):
        self.box = sync.Sandbox.create("x", image="host", detached=True)
    def __del__(self):
        try:
            self.box.fs.read("/nope")
        except MicrosandboxError as error:
            print(type(error).__name__, error.path)
        self.box.destroy(force=True)
def last():
    try:
        sync.Sandbox.get("nobody")
    except MicrosandboxError as error:
        print(type(error).__name__, error.name)
atexit.register(last)
held = Held()
"""


def test_errors_are_the_documented_classes_at_the_end(home: Path, tmp_path: Path) -> None:
    said = run_program(tmp_path, LAST_WORDS)
    assert said.splitlines() == ["SandboxNotFoundError nobody", "PathNotFoundError /nope"]
