"""E: escape attempts, each performed for real by attempts.py inside a live sandbox."""

from __future__ import annotations

import asyncio
import json
import platform
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="attempts.py has x86-64 system call numbers")

Make = Callable[..., Awaitable[Any]]
PROGRAM = Path(__file__).with_name("attempts.py").read_bytes()
REFUSED = {"EPERM", "EACCES", "ENOSYS", "ESRCH"}
# Where another answer means refusal too, and why.
ALSO = {
    "E2 fsconfig": {"EINVAL", "EBADF"},
    "E4 open_by_handle_at": {"ESTALE"},
    "E4 read /proc/kcore": {"ENOENT"},  # masked: an empty file
    "E4 read /proc/keys": {"ENOENT"},
    "E4 read /proc/timer_list": {"ENOENT"},
    "E4 read /proc/sched_debug": {"ENOENT"},
    "E4 read /sys/firmware": {"ENOENT"},
    "E4 read /dev/mem": {"ENOENT"},
    "E4 read /dev/kmsg": {"ENOENT"},
    "E4 write /proc/sys/kernel/core_pattern": {"EROFS"},
    "E4 write /proc/sys/kernel/hostname": {"EROFS"},
    "E4 write /proc/sysrq-trigger": {"EROFS", "ENOENT"},
    "E4 write /sys/kernel/uevent_helper": {"EROFS", "ENOENT"},
    "E6 pidfd_open outside": {"EINVAL"},
    "E7 int 0x80 unshare user": {"signal 31", "signal 11"},
    "E10 open /proc/1/exe for writing": {"ETXTBSY", "EROFS"},
    "E10 ld preload in the agent": {"ENOENT"},
    "E11 dot dot above the root": {"EXDEV"},
    "E11 an inherited descriptor": {"EBADF"},
    "E12 clear no_new_privs": {"EINVAL"},
    "E12 file capability": {"ENOTSUP"},
    "E13 a socket of the product in sight": {"ENOENT"},
    "E13 raise a hard limit": {"EINVAL", "ValueError: not allowed to raise maximum limit"},
    "E13 parent is visible": {"ESRCH"},
    "N1 connect internet": {"ENETUNREACH"},
    "N1 connect metadata": {"ENETUNREACH"},
    "N1 connect private": {"ENETUNREACH"},
    "N1 host loopback": {"ECONNREFUSED"},
}
# Families that a kernel may simply not have.
SOCKETS = {"ENOTSUP", "EAFNOSUPPORT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT"}


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A host process that must survive everything."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def listener() -> Iterator[int]:
    """A port on the host's loopback that no sandbox may reach."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def allowed(name: str) -> set[str]:
    extra = SOCKETS if name.startswith("E9 ") else set()
    return REFUSED | ALSO.get(name, set()) | extra


def judge(answers: dict[str, str]) -> list[str]:
    return [f"{name}: {answer}" for name, answer in answers.items() if answer not in allowed(name)]


async def run(box: Any, prefix: str, *arguments: object, **options: Any) -> dict[str, str]:
    await box.fs.write("/tmp/attempts.py", PROGRAM)
    output = await box.exec("python3", ["/tmp/attempts.py", prefix, *map(str, arguments)], timeout=60, **options)
    lines = [line for line in output.stdout_text.splitlines() if "RESULT {" in line]
    assert lines, (output.exit_code, output.stdout_text, output.stderr_text)
    answers: dict[str, str] = json.loads(lines[-1].split("RESULT ", 1)[1])
    return answers


@pytest.mark.hazard("E1", "E2", "E3", "E4", "E5", "E6", "E7", "E9", "E10", "E11", "E12", "E13", "N1")
@pytest.mark.parametrize("user", ["root", "nobody"])
@pytest.mark.parametrize(
    ("case", "at_least"),
    [("E1 ", 17), ("E2 ", 15), ("E3 ", 24), ("E4 ", 48), ("E6 ", 3), ("E7 ", 5), ("E9 ", 133), ("E11 ", 3), ("N1 ", 4)],
)
async def test_escape_attempts_are_refused(
    make: Make, bystander: subprocess.Popen[bytes], listener: int, case: str, at_least: int, user: str
) -> None:
    box = await make()
    answers = await run(box, case, bystander.pid, listener, user=user)
    assert len(answers) >= at_least, "attempts are missing"
    assert not judge(answers)
    assert bystander.poll() is None, "a host process was hurt"
    assert (await box.exec("true")).exit_code == 0, "the sandbox does not answer any more"


@pytest.mark.hazard("E5")
async def test_no_input_can_be_pushed_into_the_terminal(make: Make) -> None:
    answers = await run(await make(), "E5 ", tty=True)
    assert len(answers) == 6
    assert not judge(answers)


@pytest.mark.hazard("E10")
async def test_the_agent_is_a_sealed_copy_with_a_clean_environment(make: Make, home: Path) -> None:
    box = await make(env={"LD_PRELOAD": "/tmp/evil.so", "LD_LIBRARY_PATH": "/tmp"})
    answers = await run(box, "E10 ", env={"LD_PRELOAD": "", "LD_LIBRARY_PATH": ""})
    assert not judge(answers)
    from boxes import init_pid, runtime_pid

    for pid in (init_pid(home), runtime_pid(home)):
        assert "memfd:" in Path(f"/proc/{pid}/exe").readlink().as_posix()
        assert Path(f"/proc/{pid}/environ").read_bytes() == b""


@pytest.mark.hazard("E12")
@pytest.mark.parametrize("user", ["root", "nobody"])
async def test_privilege_gain_is_inert(make: Make, user: str) -> None:
    answers = await run(await make(), "E12 ", user=user)
    if user == "nobody":  # not its business: it may not make such files in the first place
        answers = {name: answer for name, answer in answers.items() if answer != "PermissionError"}
    assert len(answers) >= 3
    assert not judge(answers)


@pytest.mark.hazard("E13")
async def test_the_supervisor_is_out_of_reach(make: Make) -> None:
    box = await make()
    answers = await run(box, "E13 ")
    assert len(answers) == 4
    assert not judge(answers)
    assert (await box.exec("echo", ["alive"])).stdout_text == "alive\n"


@pytest.mark.hazard("E4")
async def test_writable_kernel_settings_do_not_exist(make: Make) -> None:
    """Not a list of names but a walk: nothing below /proc/sys, /sys and no device may be opened for writing."""
    script = r"""
import os, stat
bad = []
for top in ("/proc/sys", "/sys", "/proc/irq", "/proc/bus", "/proc/fs"):
    for directory, _, files in os.walk(top):
        for name in files:
            path = os.path.join(directory, name)
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
                bad.append(path)
            except OSError:
                pass
devices = set()
for directory, _, files in os.walk("/dev"):
    for name in files:
        path = os.path.join(directory, name)
        if stat.S_ISBLK(os.lstat(path).st_mode) or stat.S_ISCHR(os.lstat(path).st_mode):
            devices.add(path)
print(bad[:20]); print(sorted(devices))
"""
    output = await (await make()).exec("python3", ["-c", script], timeout=60)
    bad, devices = output.stdout_text.splitlines()
    assert bad == "[]"
    known = {
        "null",
        "zero",
        "full",
        "random",
        "urandom",
        "tty",
        "console",
        "ptmx",
        "pts/ptmx",
        "stdin",
        "stdout",
        "stderr",
    }
    assert {path.removeprefix("/dev/") for path in eval(devices)} <= known | {f"pts/{n}" for n in range(16)}


@pytest.mark.hazard("E6")
async def test_one_sandbox_cannot_see_another(make: Make) -> None:
    one, two = await make("one"), await make("two")
    marker = "marker-of-the-other-sandbox"
    handle = await two.exec_stream("sh", ["-c", f": {marker}; sleep 600"])
    listing = await one.shell("cat /proc/[0-9]*/cmdline | tr '\\0' ' '; ls -d /proc/[0-9]* | wc -l")
    # The command line of the one that looks does not hold the word.
    assert marker not in listing.stdout_text
    await two.fs.write("/tmp/secret", b"x")
    assert not await one.fs.exists("/tmp/secret")
    await handle.kill()
    await handle.wait()


SERVER = "import socket; s = socket.socket(socket.AF_UNIX); s.bind('\\0msb-abstract'); s.listen(); print('up', flush=True); s.accept()"
CLIENT = "import socket; s = socket.socket(socket.AF_UNIX); s.settimeout(2); s.connect('\\0msb-abstract')"


@pytest.mark.hazard("N2")
async def test_abstract_sockets_do_not_cross(make: Make) -> None:
    one, two = await make("one"), await make("two")
    handle = await one.exec_stream("python3", ["-c", SERVER])
    async for event in handle:
        if event.data and b"up" in event.data:
            break
    output = await two.exec("python3", ["-c", CLIENT])
    assert output.exit_code != 0 and "ConnectionRefusedError" in output.stderr_text
    await handle.kill()
    await handle.wait()
    assert await asyncio.wait_for(handle.recv(), 10) is None


async def test_host_secrets_are_not_in_the_host_image(make: Make) -> None:
    box = await make()
    for path in (
        "/etc/shadow",
        "/etc/gshadow",
        "/etc/machine-id",
        "/etc/ssh",
        "/etc/ssl/private",
        "/etc/sudoers",
        "/home/user",
        "/var/lib/dbus/machine-id",
    ):
        output = await box.shell(f"[ -e {path} ] && {{ [ -d {path} ] && ls -A {path} || cat {path}; }}; true")
        assert output.stdout_text == "", path
    # One account that says nothing of this machine, and root's home, which is the sandbox's own.
    assert (await box.shell("ls -A /home")).stdout_text in ("", "user\n")
    listing = await box.shell("ls -A /root")
    allowed = {".bashrc", ".profile", ".cache"}
    for prefix in map(Path, {sys.prefix, sys.base_prefix}):
        if prefix.is_relative_to("/root"):  # where the running interpreter lies, which is shown
            allowed.add(prefix.relative_to("/root").parts[0])
    assert set(listing.stdout_text.split()) <= allowed
