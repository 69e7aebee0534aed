"""E15: what a sandbox claims about its isolation is what the kernel says, seen from inside and from outside, and it is
no less than what bwrap and runc give for the same root."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from boxes import identity, init_pid

Make = Callable[..., Awaitable[Any]]
NAMESPACES = {
    "user_namespace": "user",
    "pid_namespace": "pid",
    "mount_namespace": "mnt",
    "ipc_namespace": "ipc",
    "uts_namespace": "uts",
    "net_namespace": "net",
    "cgroup_namespace": "cgroup",
}


def status_of(text: str) -> dict[str, str]:
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def capabilities(status: dict[str, str], which: str) -> int:
    return int(status[which], 16)


async def claims(box: Any) -> dict[str, tuple[str, str]]:
    report = await box.isolation_report()
    return {m.name: (str(m.state), m.reason or "") for m in report.mechanisms}


@pytest.mark.hazard("E15")
async def test_the_report_names_every_mechanism(make: Make) -> None:
    report = await (await make()).isolation_report()
    assert report.driver == "container"
    names = [m.name for m in report.mechanisms]
    assert len(names) == len(set(names))
    assert set(names) >= {
        *NAMESPACES,
        "capabilities",
        "no_new_privs",
        "seccomp",
        "landlock",
        "memory_limit",
        "cpu_limit",
        "pids_limit",
    }
    for mechanism in report.mechanisms:
        assert str(mechanism.state) == "on" or mechanism.reason, (
            f"{mechanism.name} is {mechanism.state} without a reason"
        )


@pytest.mark.hazard("E15")
async def test_namespaces_are_the_sandboxs_own(make: Make, home: Path) -> None:
    said = await claims(await make())
    pid = init_pid(home)
    for mechanism, name in NAMESPACES.items():
        own = os.readlink(f"/proc/{pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}")
        assert own == (said[mechanism][0] == "on"), f"{mechanism}: says {said[mechanism]}, own namespace: {own}"
        assert own, mechanism


@pytest.mark.hazard("E15")
async def test_status_agrees_inside_and_outside(make: Make, home: Path) -> None:
    box = await make()
    said = await claims(box)
    outside = status_of(Path(f"/proc/{init_pid(home)}/status").read_text())
    inside = status_of((await box.exec("cat", ["/proc/self/status"])).stdout_text)
    for who, status in (("agent", outside), ("program", inside)):
        assert (status["NoNewPrivs"] == "1") == (said["no_new_privs"][0] == "on"), who
        assert status["NoNewPrivs"] == "1", who
        assert (status["Seccomp"] == "2") == (said["seccomp"][0] == "on"), who
        assert status["Seccomp"] == "2", who
        for which in ("CapInh", "CapAmb"):
            assert capabilities(status, which) == 0, f"{which} of the {who}"
        assert capabilities(status, "CapEff") & ~capabilities(status, "CapBnd") == 0, who


# What no workload in a container needs; CAP_* numbers of linux/capability.h.
FORBIDDEN = {
    "DAC_READ_SEARCH": 2, "LINUX_IMMUTABLE": 9, "NET_BROADCAST": 11, "IPC_LOCK": 14, "IPC_OWNER": 15, "SYS_MODULE": 16,
    "SYS_RAWIO": 17, "SYS_PTRACE": 19, "SYS_PACCT": 20, "SYS_ADMIN": 21, "SYS_BOOT": 22, "SYS_NICE": 23,
    "SYS_RESOURCE": 24, "SYS_TIME": 25, "SYS_TTY_CONFIG": 26, "LEASE": 28, "AUDIT_CONTROL": 30, "MAC_OVERRIDE": 32,
    "MAC_ADMIN": 33, "SYSLOG": 34, "WAKE_ALARM": 35, "BLOCK_SUSPEND": 36, "AUDIT_READ": 37, "PERFMON": 38, "BPF": 39,
    "CHECKPOINT_RESTORE": 40,
}  # fmt: skip


@pytest.mark.hazard("E15")
async def test_capabilities_that_nothing_needs_are_gone(make: Make) -> None:
    inside = status_of((await (await make()).exec("cat", ["/proc/self/status"])).stdout_text)
    for which in ("CapBnd", "CapPrm", "CapEff"):
        held = [name for name, number in FORBIDDEN.items() if capabilities(inside, which) >> number & 1]
        assert not held, f"{which} holds {held}"


@pytest.mark.hazard("E15")
async def test_host_root_is_never_mapped_in(make: Make, home: Path) -> None:
    await make()
    for kind in ("uid", "gid"):
        for line in Path(f"/proc/{init_pid(home)}/{kind}_map").read_text().splitlines():
            _, outside, count = map(int, line.split())
            if os.getuid() == 0:
                assert outside > 0, f"{kind} 0 of the host is mapped in: {line}"
            else:
                assert outside != 0
            assert count >= 1


@pytest.mark.hazard("E15")
async def test_mounts_are_nosuid_nodev_and_kernel_paths_covered(make: Make, home: Path) -> None:
    await make()
    flags: dict[str, set[str]] = {}
    kinds: dict[str, str] = {}
    for line in Path(f"/proc/{init_pid(home)}/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split()
        if fields[3] == "/null" and fields[4].startswith("/proc/"):
            flags[fields[4]] = {"ro", "nosuid", "nodev"}  # masked: the device that swallows everything lies over it
            kinds[fields[4]] = "mask"
            continue
        flags[fields[4]] = set(fields[5].split(","))
        kinds[fields[4]] = right.split()[0]
        assert not any(field.startswith(("shared:", "master:")) for field in fields[6:]), f"propagation: {line}"
    for point, have in flags.items():
        assert "nosuid" in have, f"{point} {have}"
        if kinds[point] not in ("devpts",) and not point.startswith("/dev"):
            assert "nodev" in have, f"{point} {have}"
    assert kinds["/"] == "overlay" and kinds["/proc"] == "proc"
    for path in ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs"):
        if Path(path).exists():
            assert "ro" in flags.get(path, ()), f"{path} is not read-only"
    for path in ("/proc/kcore", "/proc/keys", "/proc/timer_list"):
        if Path(path).exists():
            assert path in flags, f"{path} is not masked"
    if "/sys" in flags:
        assert "ro" in flags["/sys"]


@pytest.mark.hazard("E15")
async def test_nothing_of_the_host_is_open(make: Make, home: Path) -> None:
    await make()
    directory = Path(f"/proc/{init_pid(home)}/fd")
    root = Path(f"/proc/{init_pid(home)}/root")
    inside = {(found.st_dev, found.st_ino) for found in (root.stat(), (root / "proc").stat())}
    for entry in directory.iterdir():
        target = os.readlink(entry)
        if target.startswith("/") and target != "/dev/null" and not target.startswith("/memfd:"):
            found = entry.stat()
            assert (found.st_dev, found.st_ino) in inside, f"the agent holds {target}"


@pytest.mark.hazard("E15")
async def test_limits_are_what_the_report_says(make: Make, home: Path) -> None:
    box = await make(memory=128, cpus=1)
    said = await claims(box)
    found: dict[str, int] = {}
    for group in map(Path, identity(home)["cgroups"]):
        for name, files in (
            ("memory_limit", ("memory.max", "memory.limit_in_bytes")),
            ("pids_limit", ("pids.max",)),
            ("cpu_limit", ("cpu.max", "cpu.cfs_quota_us")),
        ):
            for file in files:
                if (group / file).exists() and (value := (group / file).read_text().split()[0]) not in ("max", "-1"):
                    found[name] = int(value)
    for name in ("memory_limit", "pids_limit", "cpu_limit"):
        assert (name in found) == (said[name][0] == "on"), f"{name}: says {said[name]}, found {found.get(name)}"
    if "memory_limit" in found:
        # The agent and its page tables come on top.
        assert 128 << 20 <= found["memory_limit"] <= (128 + 8) << 20
    if "pids_limit" in found:
        assert found["pids_limit"] == 4096 + 1  # and the agent
    # Inside, every process is in those groups: none escaped into the caller's.
    inside = (await box.exec("cat", ["/proc/self/cgroup"])).stdout_text
    assert all(line.endswith(":/") or line.count("..") for line in inside.splitlines()), inside


@pytest.fixture(scope="session")
def unpacked(debian_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The Debian root file system as a directory, made by umoci: the peers' root, and ours."""
    if os.getuid() != 0 or not shutil.which("umoci"):
        pytest.skip("unpacking with umoci needs root and umoci")
    work = tmp_path_factory.mktemp("peers")
    (work / "layout").mkdir()
    subprocess.run(["tar", "-xf", debian_archive, "-C", work / "layout"], check=True)
    subprocess.run(
        ["umoci", "unpack", "--image", f"{work}/layout:latest", f"{work}/bundle"], check=True, capture_output=True
    )
    yield work / "bundle"
    shutil.rmtree(work)


def run_bwrap(root: Path) -> dict[str, str]:
    command = ["bwrap", "--unshare-all", "--die-with-parent", "--bind", root, "/", "--proc", "/proc", "--dev", "/dev"]
    done = subprocess.run([*command, "cat", "/proc/self/status"], check=True, capture_output=True, text=True)
    return status_of(done.stdout)


def run_runc(bundle: Path, tmp_path: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """runc with the configuration that `runc spec` proposes, on the same root."""
    directory = tmp_path / "runc"
    directory.mkdir()
    subprocess.run(["runc", "spec", "--bundle", directory], check=True)
    config = json.loads((directory / "config.json").read_text())
    config["process"].update(terminal=False, args=["cat", "/proc/self/status"])
    config["root"] = {"path": str(bundle / "rootfs"), "readonly": True}
    (directory / "config.json").write_text(json.dumps(config))
    done = subprocess.run(
        ["runc", "--root", str(tmp_path / "state"), "run", "--bundle", directory, f"peer{os.getpid()}"],
        capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"runc does not run on this machine: {done.stderr.strip()[-300:]}")
    return status_of(done.stdout), config


@pytest.mark.hazard("E15")
@pytest.mark.root
async def test_no_less_than_bwrap_and_runc_on_the_same_root(
    make: Make, home: Path, unpacked: Path, tmp_path: Path
) -> None:
    box = await make(image=str(unpacked / "rootfs"))
    ours = status_of((await box.exec("cat", ["/proc/self/status"])).stdout_text)
    said = await claims(box)
    if shutil.which("bwrap"):
        theirs = run_bwrap(unpacked / "rootfs")
        assert int(ours["Seccomp"]) >= int(theirs["Seccomp"])
        assert int(ours["NoNewPrivs"]) >= int(theirs["NoNewPrivs"])
    runc, config = run_runc(unpacked, tmp_path)
    assert int(ours["Seccomp"]) >= int(runc["Seccomp"])
    assert int(ours["NoNewPrivs"]) >= int(runc["NoNewPrivs"])
    # runc's default set has three capabilities; ours is Docker's fourteen at most, in a user namespace that runc lacks.
    assert said["user_namespace"][0] == "on"
    assert capabilities(ours, "CapBnd").bit_count() <= 14
    own = {n["type"] for n in config["linux"]["namespaces"]}
    assert own <= {"pid", "network", "ipc", "uts", "mount", "cgroup"}
    mounted = {line.split()[4] for line in Path(f"/proc/{init_pid(home)}/mountinfo").read_text().splitlines()}
    for path in config["linux"]["maskedPaths"] + config["linux"]["readonlyPaths"]:
        if (await box.fs.exists(path)) and path != "/sys/firmware":
            covered = path in mounted or any(
                path.startswith(f"{point}/") for point in ("/sys", "/proc/sys") if point in mounted
            )
            assert covered, f"runc covers {path}, we do not"
