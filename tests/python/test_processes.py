"""Worker processes of a program that uses sandboxes: `multiprocessing` by every way of starting them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
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


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_make_find_and_leave_sandboxes(home: Path, tmp_path: Path, method: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, program, method],
        capture_output=True,
        text=True,
        timeout=within(60),
        env={**os.environ, "MSB_ISOLATION": "container"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "[['0', 'shared'], ['1', 'shared'], ['2', 'shared'], ['3', 'shared']]",
        "(('9', 'shared'), 'still')",
        "alive",
        "['parent']",
    ]
