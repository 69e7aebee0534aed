"""Other processes that use the product: Python programs that tests start, watch and kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pace import within

PRELUDE = """
import asyncio, os, signal, sys, time, warnings
warnings.simplefilter("ignore")
import microsandbox
from microsandbox import *
home = os.environ["MSB_HOME"]
backend = LocalBackend(home=home, isolation=os.environ.get("ISOLATION", "container"))
"""

Client = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def client(home: Path, isolation: str) -> Iterator[Client]:
    """Starts a Python program in which `backend` is a local backend on the test's home and every name of the package
    is imported. `async def main()` in it is run. Killed at the end of the test if it still lives."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        body = PRELUDE + textwrap.dedent(code) + "\nasyncio.run(main())\n"
        process = subprocess.Popen(
            [sys.executable, "-c", body, *arguments],
            env={**os.environ, "ISOLATION": isolation, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def said_by(*program: str | Path, before: tuple[str, ...] = (), timeout: float = 60, **environment: str) -> str:
    """What a Python program prints that succeeds: its file, or `-c` and its text, and its arguments; `before` starts it."""
    done = subprocess.run(
        [*before, sys.executable, *program],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=within(timeout),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def finish(process: subprocess.Popen[str], timeout: float = within(60)) -> tuple[int, str, str]:
    """Waits for the end: status, output, errors. A program that hangs is killed and reported as such."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"the client hangs\n{out}\n{err}")
    return process.returncode, out, err


def line_of(process: subprocess.Popen[str], expected: str) -> None:
    """Waits until the program says `expected`."""
    assert process.stdout is not None
    got = process.stdout.readline().strip()
    if got != expected:
        process.kill()
        pytest.fail(f"expected {expected!r}, got {got!r}\n{process.communicate()[1]}")


KILLED = -signal.SIGKILL
