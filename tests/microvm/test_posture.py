"""The walls around a virtual machine monitor, read from /proc of the live one: a guest kernel that is hostile has to find
itself in a jail after it got out of the machine."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from backends import Harness
from boxes import identity, init_pid, runtime_pid

Make = Callable[..., Awaitable[Any]]

# CAP_* of linux/capability.h that serving a root file system takes, all of them in a user namespace of its own.
FILES = {"CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "FSETID": 4, "SETGID": 6, "SETUID": 7, "MKNOD": 27, "SETFCAP": 31}

MEMORY = 512 << 20
# For the monitor itself, its page tables and the queues of its devices.
OVERHEAD = 128 << 20
# What libkrun opens.
DEVICES = {"kvm", "null", "random", "urandom"}


@pytest.fixture
def isolation() -> str:
    return "microvm"


@pytest.fixture
async def place(shared_harness: Harness) -> Path:
    """The home of a running sandbox `shared` with 512 MiB."""
    assert shared_harness.home is not None
    return shared_harness.home


@pytest.fixture
def monitor(place: Path) -> Path:
    """/proc of its monitor."""
    return Path("/proc", str(init_pid(place, "shared")))


def status(proc: Path) -> dict[str, str]:
    lines = (proc / "status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def threads(proc: Path) -> list[Path]:
    return sorted((proc / "task").iterdir())


async def test_the_guest_has_a_kernel_of_its_own(shared_box: Any) -> None:
    inside = (await shared_box.exec("uname", ["-r"])).stdout_text.strip()
    assert inside and inside != os.uname().release
    assert (await shared_box.isolation_report()).driver == "microvm"


@pytest.mark.hazard("E17")
async def test_every_thread_is_filtered_and_gains_nothing(monitor: Path) -> None:
    for thread in threads(monitor):
        state = status(thread)
        name = state["Name"]
        assert state["Seccomp"] == "2", name
        assert state["NoNewPrivs"] == "1", name


@pytest.mark.hazard("E17")
async def test_no_thread_holds_more_than_files_need(monitor: Path) -> None:
    allowed = sum(1 << number for number in FILES.values())
    for thread in threads(monitor):
        state = status(thread)
        for which in ("CapEff", "CapPrm", "CapBnd"):
            extra = int(state[which], 16) & ~allowed
            assert extra == 0, f"{which} of {state['Name']} has {extra:#x} beyond {sorted(FILES)}"
        for which in ("CapInh", "CapAmb"):
            assert int(state[which], 16) == 0, f"{which} of {state['Name']}"


@pytest.mark.parametrize("name", ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"])
async def test_namespaces_are_its_own(monitor: Path, place: Path, name: str) -> None:
    own = os.readlink(monitor / "ns" / name)
    assert own != os.readlink(f"/proc/self/ns/{name}")
    assert own != os.readlink(f"/proc/{runtime_pid(place, 'shared')}/ns/{name}")


async def test_it_is_the_first_of_its_processes(monitor: Path) -> None:
    assert status(monitor)["NSpid"].split()[-1] == "1"


async def test_no_user_of_the_host_is_mapped_in(monitor: Path) -> None:
    for kind in ("uid", "gid"):
        for line in (monitor / f"{kind}_map").read_text().splitlines():
            _, outside, count = map(int, line.split())
            assert outside != 0 and count >= 1, f"{kind} {line}"
    assert "0" not in status(monitor)["Uid"].split(), "it runs as the host's root"


async def test_its_network_is_nothing(monitor: Path) -> None:
    devices = [line.split(":")[0].strip() for line in (monitor / "net" / "dev").read_text().splitlines()[2:]]
    assert set(devices) <= {"lo"}


@pytest.mark.hazard("E17")
async def test_open_descriptors_are_the_machines(monitor: Path) -> None:
    """/dev/kvm, what KVM made, its root, sockets and events; no file of the host, nothing of the client's."""
    clients = {os.readlink(f"/proc/self/fd/{entry}") for entry in os.listdir("/proc/self/fd") if alive(entry)}
    clients = {target for target in clients if target.startswith(("socket:", "pipe:"))}
    root = (monitor / "root").stat().st_dev
    for entry in (monitor / "fd").iterdir():
        try:
            target = os.readlink(entry)
        except FileNotFoundError:
            continue
        assert target not in clients, f"the client's {target} is open as {entry.name}"
        if target.startswith(("anon_inode:", "socket:", "pipe:", "/memfd:")):
            continue
        if target in {f"/dev/{name}" for name in DEVICES}:
            continue
        found = entry.stat()
        if stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
            pytest.fail(f"a device that no machine needs: {target}")
        # The console goes to a log, and the guest's kernel came out of a library.
        named = Path(target).name
        inside = found.st_dev == root or served(monitor, found.st_dev) or same(monitor / "root" / target[1:], found)
        inside = inside or named.endswith(".log") or named.startswith("libkrunfw")
        assert inside, f"a file of the host: {target}"


def alive(entry: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{entry}")


def same(path: Path, found: os.stat_result) -> bool:
    """Whether a path of the monitor's own view leads to this file."""
    with contextlib.suppress(OSError):
        # What the guest looked up is held open itself, links too.
        return os.path.samestat(path.lstat(), found)
    return False


def served(monitor: Path, device: int) -> bool:
    """Whether a file system is mounted in the monitor's own view."""
    numbers = {line.split()[2] for line in (monitor / "mountinfo").read_text().splitlines()}
    return f"{os.major(device)}:{os.minor(device)}" in numbers


@pytest.mark.hazard("E17")
async def test_its_root_holds_only_what_it_must(monitor: Path) -> None:
    """The guest's root, the sockets, four devices, and of /proc its own entries; nothing beside them."""
    root = monitor / "root"
    assert {entry.name for entry in root.iterdir()} == {"root", "sockets", "dev", "proc"}
    assert {entry.name for entry in (root / "dev").iterdir()} == DEVICES
    assert {entry.name for entry in (root / "proc").iterdir()} == {"1", "self", "thread-self"}


@pytest.mark.hazard("E17")
async def test_its_mounts_are_private_and_grant_nothing(monitor: Path) -> None:
    for line in (monitor / "mountinfo").read_text().splitlines():
        left, _, _ = line.partition(" - ")
        fields = left.split()
        options = set(fields[5].split(","))
        assert not any(field.startswith(("shared:", "master:")) for field in fields[6:]), line
        assert "nosuid" in options, line
        # Where the devices are nothing can be added.
        assert ("ro" if fields[4].startswith("/dev") else "nodev") in options, line


@pytest.mark.hazard("E16")
async def test_read_only_is_enforced_by_the_host(shared_box: Any, monitor: Path) -> None:
    """What the machine is shown read-only is a read-only mount of the monitor, whatever the guest's own kernel thinks."""
    options = {
        line.split()[4]: set(line.split()[5].split(",")) for line in (monitor / "mountinfo").read_text().splitlines()
    }
    assert "ro" in options["/root/usr"]
    output = await shared_box.shell("mount -o remount,rw /usr; touch /usr/written")
    assert output.exit_code != 0 and "Read-only file system" in output.stderr_text
    assert not Path("/usr/written").exists()


async def test_groups_limit_the_guest_and_its_overhead(place: Path) -> None:
    found: dict[str, str] = {}
    for group in map(Path, identity(place, "shared")["cgroups"]):
        for file in ("memory.max", "memory.limit_in_bytes", "pids.max", "cpu.max"):
            if (group / file).exists():
                found[file] = (group / file).read_text().split()[0]
    memory = found.get("memory.max", found.get("memory.limit_in_bytes"))
    assert memory not in (None, "max", "-1"), found
    assert MEMORY <= int(memory) <= MEMORY + OVERHEAD
    assert found["pids.max"] != "max" and int(found["pids.max"]) <= 64, found


async def test_resource_limits(monitor: Path) -> None:
    limits = {}
    for line in (monitor / "limits").read_text().splitlines()[1:]:
        limits[line[:26].strip()] = line[26:].split()[:2]
    assert limits["Max core file size"] == ["0", "0"]
    assert limits["Max open files"][1] != "unlimited"


async def test_its_memory_is_closed_to_its_equals(monitor: Path) -> None:
    """To a process of the same ids without the capability to trace, which is what another monitor that broke out would be."""
    equal = ["nsenter", "--user", "--target", monitor.name, "setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    reader = subprocess.run([*equal, "head", "-c", "1", monitor / "mem"], capture_output=True, text=True)
    # Where it may be opened, reading its first page fails with another error.
    assert "Permission denied" in reader.stderr, reader


async def test_secrets_are_in_neither_argv_nor_environ(make: Make, home: Path) -> None:
    await make(env={"TOKEN": "a-secret-of-the-test"})
    for pid in (init_pid(home), runtime_pid(home)):
        for file in ("cmdline", "environ"):
            assert b"a-secret-of-the-test" not in Path(f"/proc/{pid}/{file}").read_bytes(), file


async def test_no_environment_came_from_the_client(make: Make, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY_OF_THE_HOST", "1")
    await make()
    assert b"CANARY_OF_THE_HOST" not in Path(f"/proc/{init_pid(home)}/environ").read_bytes()
