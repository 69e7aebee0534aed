"""How a virtual machine can end other than by being asked: each way has its status and its reason, and nothing stays."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from boxes import identity, init_pid, runtime_pid
from clients import Client, finish, line_of
from homes import query
from leaks import descendants, read_process
from microsandbox import (
    BootStartError,
    InvalidConfigError,
    LocalBackend,
    MicrosandboxError,
    Sandbox,
    SandboxNotRunningError,
    SandboxStatus,
)
from pace import within

Make = Callable[..., Awaitable[Any]]
ENDED = {SandboxStatus.STOPPED, SandboxStatus.CRASHED}


@pytest.fixture
def isolation() -> str:
    return "microvm"


async def ends(local: Any, seconds: float) -> SandboxStatus:
    """The status once the sandbox has ended."""
    deadline = time.monotonic() + within(seconds)
    while (status := (await Sandbox.get("box", backend=local)).status) not in ENDED:
        assert time.monotonic() < deadline, f"still {status} after {within(seconds)} s"
        await asyncio.sleep(0.1)
    return status


async def gone(*pids: int) -> None:
    deadline = time.monotonic() + within(5)
    for pid in pids:
        while (process := read_process(pid)) and process.state != "Z":
            assert time.monotonic() < deadline, f"{process} still lives"
            await asyncio.sleep(0.05)


def reason(home: Path) -> str:
    """Why the last run ended, as recorded."""
    return str(query(home, "select termination_reason from run order by id desc limit 1")[0][0][0])  # type: ignore[index]


async def nothing_left(home: Path, pids: tuple[int, ...], groups: list[str]) -> None:
    await gone(*pids)
    deadline = time.monotonic() + within(5)
    while left := [group for group in groups if Path(group).exists()]:
        assert time.monotonic() < deadline, left
        await asyncio.sleep(0.05)
    assert not (home / "sandboxes" / "box" / "runtime" / "agent.sock").exists()


def everything(home: Path) -> tuple[tuple[int, ...], list[str]]:
    return (init_pid(home), runtime_pid(home)), list(identity(home)["cgroups"])


REBOOT = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
print(libc.reboot(ctypes.c_int(int(sys.argv[1], 16))), ctypes.get_errno(), flush=True)
"""


async def test_a_program_powers_the_machine_off_through_its_init_alone(make: Make, local: Any, home: Path) -> None:
    """reboot(2) is refused, because a machine that a program halts would be lost; what busybox's `poweroff` sends is heard."""
    box = await make()
    pids, groups = everything(home)
    for command in ("4321fedc", "cdef0123", "01234567"):  # power off, halt, restart
        output = await box.exec("python3", ["-c", REBOOT, command])
        assert output.stdout_text == "-1 1\n", "no EPERM"
    with contextlib.suppress(MicrosandboxError):
        await box.shell("kill -USR2 1; sleep 100")
    assert await ends(local, 10) is SandboxStatus.STOPPED
    assert reason(home) == "Completed"
    await nothing_left(home, pids, groups)


BREAK_INIT = """
for line in open("/proc/1/maps"):
    place, rights = line.split()[:2]
    if "x" in rights and "[v" not in line:
        begin, end = (int(number, 16) for number in place.split("-"))
        with open("/proc/1/mem", "r+b", buffering=0) as memory:
            memory.seek(begin)
            memory.write(bytes([0xCC]) * (end - begin))
"""


@pytest.mark.parametrize("how", ["kernel", "init"])
async def test_a_guest_that_breaks_itself_is_a_crash(make: Make, local: Any, home: Path, how: str) -> None:
    """As its root can: the kernel panics for lack of memory and its console says so, or its init is overwritten."""
    box = await make(memory=96)
    pids, groups = everything(home)
    panic = ("sh", ["-c", "echo 2 > /proc/sys/vm/panic_on_oom; head -c 200m /dev/zero | tail"])
    command, arguments = panic if how == "kernel" else ("python3", ["-c", BREAK_INIT])
    with pytest.raises(MicrosandboxError):
        await asyncio.wait_for(box.exec(command, arguments), within(20))
    assert await ends(local, 10) is SandboxStatus.CRASHED
    assert reason(home) == "Failed"
    if how == "kernel":
        assert "Kernel panic" in (home / "sandboxes" / "box" / "logs" / "kernel.log").read_text(errors="replace")
    await nothing_left(home, pids, groups)


# Random values into the registers of every device: addresses of rings, sizes, notifications (virtio 1.2, 4.2.2).
WILD_REGISTERS = """
import ctypes, mmap, os, random
random.seed(16)
memory = os.open("/dev/mem", os.O_RDWR | os.O_SYNC)
pages = [mmap.mmap(memory, 4096, offset=base) for base in range(0xD0000000, 0xD0005000, 0x1000)]
assert all(page[:4] == b"virt" for page in pages)
print("begin", flush=True)
registers = [0x14, 0x20, 0x24, 0x30, 0x38, 0x44, 0x50, 0x70, 0x80, 0x84, 0x90, 0x94, 0xA0, 0xA4]
for _ in range(3000):
    value = random.choice([0, 1, 2, 0x1000, 0xFFFFFFFF, random.getrandbits(32)])
    ctypes.c_uint32.from_buffer(random.choice(pages), random.choice(registers)).value = value
"""


@pytest.mark.hazard("E16")
async def test_wild_device_registers_affect_no_other_machine(make: Make, home: Path) -> None:
    """The guest's root drives the devices itself: its monitor ends or ignores it, and whatever is left of it can be ended."""
    other = await make("other", memory=256)
    box = await make(memory=256)
    pids, groups = everything(home)
    handle = await box.exec_stream("python3", ["-c", WILD_REGISTERS])
    assert (await handle.recv()).event_type == "started"
    assert (await asyncio.wait_for(handle.recv(), within(20))).data == b"begin\n"
    await asyncio.sleep(within(1))
    assert (await other.exec("echo", ["unharmed"])).stdout_text == "unharmed\n"
    await asyncio.wait_for(box.kill(), within(15))
    await nothing_left(home, pids, groups)
    assert (await other.exec("echo", ["unharmed"])).stdout_text == "unharmed\n"


async def test_the_least_memory_boots_and_less_is_refused(make: Make, home: Path) -> None:
    with pytest.raises(InvalidConfigError, match="memory of a microVM must be 64 to"):
        await make(memory=63)
    assert not (home / "sandboxes" / "box").exists()
    box = await make(memory=64)
    assert (await box.exec("echo", ["room"])).stdout_text == "room\n"


async def test_a_kernel_that_hangs_is_a_boot_error_that_says_so(home: Path) -> None:
    """The machine executes nothing from its first moment on, and the boot ends at its deadline."""
    config = json.loads((home / "config.json").read_text())
    (home / "config.json").write_text(json.dumps({**config, "boot": {"ready_timeout_secs": 3}}))
    local = LocalBackend(home=home, isolation="microvm")

    def monitors() -> set[int]:
        return {p.pid for p in descendants() if p.name == "msb-vmm"}

    # The sandbox that other tests share has one, too.
    others = monitors()

    async def freeze() -> None:
        while not (mine := monitors() - others):
            await asyncio.sleep(0.01)
        os.kill(mine.pop(), signal.SIGSTOP)

    freezing = asyncio.create_task(freeze())
    with pytest.raises(BootStartError) as caught:
        await Sandbox.create("box", image="host", backend=local)
    await freezing
    assert (caught.value.name, caught.value.stage) == ("box", "build_vm")
    assert "its kernel has not started it" in caught.value.message
    assert "msb doctor --recheck" in caught.value.hint
    assert not (await Sandbox.list(backend=local)).sandboxes
    assert not (home / "sandboxes" / "box").exists()


async def test_the_monitors_death_is_a_crash(make: Make, local: Any, home: Path) -> None:
    box = await make()
    pids, groups = everything(home)
    call = asyncio.create_task(box.exec("sleep", ["600"]))
    await asyncio.sleep(within(0.5))
    os.kill(pids[0], signal.SIGKILL)
    assert await ends(local, 5) is SandboxStatus.CRASHED
    with pytest.raises(MicrosandboxError):
        await asyncio.wait_for(call, within(10))
    with pytest.raises(SandboxNotRunningError):
        await box.exec("true")
    assert reason(home) == "Signal"
    await nothing_left(home, pids, groups)


async def test_the_runtimes_death_takes_the_machine_along(make: Make, local: Any, home: Path) -> None:
    box = await make()
    pids, groups = everything(home)
    os.kill(pids[1], signal.SIGKILL)
    assert await ends(local, 2) is SandboxStatus.CRASHED
    await gone(*pids)
    with pytest.raises(SandboxNotRunningError):
        await box.exec("true")
    # What the dead runtime could not take away goes with the record.
    await Sandbox.remove("box", backend=local)
    await nothing_left(home, pids, groups)
    assert not (home / "sandboxes" / "box").exists()


async def test_an_attached_machine_ends_with_its_creator(client: Client, local: Any, home: Path) -> None:
    code = """
    async def main():
        box = await Sandbox.create("box", image="host", backend=backend)
        print("up", flush=True)
        await asyncio.sleep(3600)
    """
    creator = client(code)
    line_of(creator, "up")
    pids, groups = everything(home)
    creator.kill()
    finish(creator)
    await ends(local, 15)
    await nothing_left(home, pids, groups)
    await Sandbox.remove("box", backend=local)


async def test_a_detached_machine_survives_and_is_found_again(client: Client, local: Any, home: Path) -> None:
    code = """
    async def main():
        box = await Sandbox.create("box", image="host", backend=backend, detached=True)
        await box.fs.write("/tmp/kept", b"by the first")
        print("up", flush=True)
        await asyncio.sleep(3600)
    """
    creator = client(code)
    line_of(creator, "up")
    creator.kill()
    finish(creator)
    pids, groups = everything(home)
    box = await (await Sandbox.get("box", backend=local)).connect()
    assert await box.fs.read("/tmp/kept") == b"by the first"
    await box.stop()
    assert (await Sandbox.get("box", backend=local)).status is SandboxStatus.STOPPED
    await nothing_left(home, pids, groups)
    await Sandbox.remove("box", backend=local)


async def test_stop_escalates_when_the_machine_hangs(make: Make, local: Any, home: Path) -> None:
    """A stopped monitor is a kernel that hangs: no agent answers, and the stop must come to its end all the same."""
    box = await make()
    pids, groups = everything(home)
    os.kill(pids[0], signal.SIGSTOP)
    began = time.monotonic()
    await asyncio.wait_for(box.stop(timeout=2), within(30))
    assert time.monotonic() - began < 2 + within(15)
    assert await ends(local, 1) in ENDED
    await nothing_left(home, pids, groups)


async def test_kill_needs_no_answer(make: Make, local: Any, home: Path) -> None:
    box = await make()
    pids, groups = everything(home)
    os.kill(pids[0], signal.SIGSTOP)
    began = time.monotonic()
    await asyncio.wait_for(box.kill(), within(15))
    assert time.monotonic() - began < within(10)
    await nothing_left(home, pids, groups)


async def test_calls_to_a_hung_machine_end_with_their_timeout(make: Make, home: Path) -> None:
    box = await make()
    monitor = init_pid(home)
    os.kill(monitor, signal.SIGSTOP)
    with pytest.raises((MicrosandboxError, TimeoutError)):
        await asyncio.wait_for(box.exec("true", timeout=1), within(60))
    os.kill(monitor, signal.SIGCONT)


async def test_what_a_stop_leaves_is_on_disk(make: Make, local: Any) -> None:
    """A graceful stop syncs the guest: what was written is there when it starts again."""
    box = await make()
    await box.shell("dd if=/dev/urandom of=/root/data bs=64k count=32 2>/dev/null; sha256sum /root/data > /root/sum")
    await box.stop()
    again = await Sandbox.start("box", backend=local)
    assert (await again.shell("sha256sum -c /root/sum")).stdout_text == "/root/data: OK\n"
