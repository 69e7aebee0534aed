"""A person at a terminal: `Sandbox.attach` and `msb exec -t`, through a real pty."""

from __future__ import annotations

import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import textwrap
import time
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path

import pytest

DEADLINE = 60.0


class Person:
    """A user at a terminal who runs one program."""

    def __init__(self, *command: str, home: Path) -> None:
        self.terminal, side = pty.openpty()
        ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 110, 0, 0))
        self.before = termios.tcgetattr(side)
        self.side = side
        environment = {**os.environ, "MSB_HOME": str(home), "TERM": "xterm-256color"}
        self.process = subprocess.Popen(
            command, stdin=side, stdout=side, stderr=side, env=environment, start_new_session=True, preexec_fn=control
        )
        self.seen = b""

    def type(self, text: str) -> None:
        os.write(self.terminal, text.encode())

    def sees(self, text: str) -> None:
        """Reads until `text` appears."""
        deadline = time.monotonic() + DEADLINE
        while text.encode() not in self.seen:
            ready, _, _ = select.select([self.terminal], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{text!r} did not appear: {self.seen!r}"
            self.seen += os.read(self.terminal, 65536)

    def resize(self, rows: int, cols: int) -> None:
        ioctl(self.side, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def ends(self) -> int:
        """The exit status of the program; the terminal mode must be restored."""
        deadline = time.monotonic() + DEADLINE
        while self.process.poll() is None and time.monotonic() < deadline:
            # A full terminal buffer would block the program.
            if select.select([self.terminal], [], [], 0.05)[0]:
                self.seen += os.read(self.terminal, 65536)
        assert self.process.poll() is not None, self.seen
        while select.select([self.terminal], [], [], 0)[0]:
            self.seen += os.read(self.terminal, 65536)
        assert termios.tcgetattr(self.side) == self.before
        return self.process.returncode

    def leave(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        os.close(self.terminal)
        os.close(self.side)


def control() -> None:
    """Makes the terminal the controlling terminal of the new session."""
    ioctl(0, termios.TIOCSCTTY, 0)


PROGRAM = """
import asyncio
from microsandbox import Sandbox

async def main():
    sandbox = await Sandbox.create("box", image="host")
    try:
        print("status", await sandbox.{call}, flush=True)
        running = await sandbox.shell("ps -e -o args | grep -c '[s]leep 600'")
        print("left", running.stdout_text.strip(), flush=True)
    finally:
        await sandbox.destroy(force=True)

asyncio.run(main())
"""


@pytest.fixture
def people() -> Iterator[list[Person]]:
    present: list[Person] = []
    yield present
    for person in present:
        person.leave()


@pytest.fixture
def attach(home: Path, people: list[Person]):
    def start(call: str) -> Person:
        program = textwrap.dedent(PROGRAM).replace("{call}", call)
        person = Person(sys.executable, "-c", program, home=home)
        people.append(person)
        return person

    return start


def test_a_shell_is_live_and_its_status_is_returned(attach) -> None:
    person = attach("attach_shell()")
    person.type("echo $((6*7)) $TERM; stty size\n")
    person.sees("42 xterm-256color")
    person.sees("40 110")
    person.resize(25, 77)
    os.killpg(person.process.pid, signal.SIGWINCH)
    time.sleep(0.3)
    person.type("stty size\n")
    person.sees("25 77")
    person.type("exit 7\n")
    assert person.ends() == 0
    person.sees("status 7")


def test_control_c_goes_to_the_program(attach) -> None:
    person = attach('attach("sh", ["-c", "trap \'echo caught; exit 4\' INT; echo up; sleep 600 & wait"])')
    person.sees("up")
    person.type("\x03")
    person.sees("caught")
    assert person.ends() == 0
    person.sees("status 4")


@pytest.mark.parametrize(("keys", "typed"), [(None, "\x1d"), ("ctrl-p,ctrl-q", "\x10\x11")])
def test_the_detach_keys_leave_the_program_running(attach, keys: str | None, typed: str) -> None:
    person = attach(f'attach("sh", ["-c", "echo up; exec sleep 600"], detach_keys={keys!r})')
    person.sees("up")
    person.type(typed)
    person.sees("left 1")
    assert person.ends() == 0
    assert b"status 0" in person.seen


def test_the_terminal_is_restored_when_the_attach_fails(attach) -> None:
    person = attach('attach("/no/such/program")')
    assert person.ends() == 1
    person.sees("ExecFailedError")


def test_the_terminal_is_restored_when_the_sandbox_is_killed(attach, home: Path) -> None:
    person = attach('attach("sh", ["-c", "echo up; exec sleep 600"])')
    person.sees("up")
    subprocess.run(
        [Path(sys.executable).parent / "msb", "kill", "box"],
        env={**os.environ, "MSB_HOME": str(home)},
        check=True,
        timeout=60,
        capture_output=True,
    )
    assert person.ends() == 1
    person.sees("microsandbox.errors")


def test_without_a_terminal_the_end_of_input_ends_the_shell(home: Path) -> None:
    program = textwrap.dedent(PROGRAM).replace("{call}", "attach_shell()")
    done = subprocess.run(
        [sys.executable, "-c", program],
        input="echo from a pipe\nexit 3\n",
        env={**os.environ, "MSB_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stderr
    assert "from a pipe" in done.stdout and "status 3" in done.stdout


def test_invalid_keys_are_refused_before_the_program_starts(attach) -> None:
    person = attach('attach("sh", detach_keys="hyper-x")')
    assert person.ends() == 1
    person.sees("detach_keys")


def test_msb_exec_uses_a_terminal_and_restores_it(home: Path, people: list[Person]) -> None:
    msb = str(Path(sys.executable).parent / "msb")
    environment = {**os.environ, "MSB_HOME": str(home)}
    subprocess.run([msb, "create", "host", "-n", "box"], env=environment, check=True, timeout=60, capture_output=True)
    try:
        person = Person(msb, "exec", "-t", "box", "--", "sh", home=home)
        people.append(person)
        person.type("echo $((40+2)); tty; exit 5\n")
        person.sees("42")
        person.sees("/dev/pts/")
        assert person.ends() == 5
    finally:
        subprocess.run([msb, "rm", "-f", "box"], env=environment, check=True, timeout=60, capture_output=True)
