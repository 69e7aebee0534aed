"""What the process that creates a sandbox is like does not show inside: one caller with everything odd at once, beside a plain one."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from typing import Any

import pytest
from backends import Harness
from pace import within

pytestmark = [pytest.mark.needs("processes")]

# Run inside, as a user without rights: what a program sees of what it was started with.
PROBE = r"""
import ctypes, json, os, platform, resource, stat, sys
libc = ctypes.CDLL(None, use_errno=True)
ioprio_get = {"x86_64": 252, "aarch64": 31}[platform.machine()]
PR_GET_DUMPABLE, PR_GET_TIMERSLACK, PR_GET_THP_DISABLE = 3, 30, 42
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
def read(path):
    try:
        return open(path).read()
    except OSError as error:
        return error.errno
def mode(path):
    return oct(stat.S_IMODE(os.stat(path).st_mode))
report = {
    "umask": oct(os.umask(0)),
    "nice": os.nice(0),
    "ioprio": libc.syscall(ioprio_get, 1, 0),
    "policy": os.sched_getscheduler(0),
    "processors": sorted(os.sched_getaffinity(0)),
    "memory policy": read("/proc/self/numa_maps").split()[1] if os.path.exists("/proc/self/numa_maps") else None,
    "oom_score_adj": read("/proc/self/oom_score_adj"),
    "coredump_filter": read("/proc/self/coredump_filter"),
    "personality": libc.personality(0xFFFFFFFF),
    "dumpable": libc.prctl(PR_GET_DUMPABLE, 0, 0, 0, 0),
    "timer slack": libc.prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0),
    "huge pages": libc.prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0),
    "signals": [status[name].strip() for name in ("SigQ", "SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt")],
    "limits": {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")},
    "environment": dict(os.environ),
    "encoding": [sys.getfilesystemencoding(), sys.stdout.encoding],
    "streams": [stat.S_IFMT(os.fstat(number).st_mode) for number in range(3)],
    "descriptors": len(os.listdir("/proc/self/fd")),
    "session": os.getsid(0) == os.getpid(),
    "modes": [mode(path) for path in ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/data", "/data/made", "/tmp", "/dev/shm", "/srv/a/b")],
    "read": [len(read(path)) > 0 for path in ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/srv/a/b/file", "/.msb/scripts/script")],
}
print(json.dumps(report))
"""

# The caller: `odd` makes it so before it imports the product. It prints what the probe said.
CALLER = r"""
import asyncio, ctypes, json, os, platform, resource, signal, sys
result = os.dup(1)
if sys.argv[1] == "odd":
    libc = ctypes.CDLL(None, use_errno=True)
    ioprio_set, keyctl, set_mempolicy = {"x86_64": (251, 250, 238), "aarch64": (30, 219, 237)}[platform.machine()]
    PR_SET_DUMPABLE, PR_SET_TIMERSLACK, PR_SET_THP_DISABLE, IDLE, MPOL_INTERLEAVE = 4, 29, 41, 3 << 13, 3
    os.umask(0o077)
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    os.nice(7)
    assert libc.syscall(ioprio_set, 1, 0, IDLE) == 0
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    libc.syscall(set_mempolicy, MPOL_INTERLEAVE, ctypes.byref(ctypes.c_ulong(1)), 64)
    open("/proc/self/oom_score_adj", "w").write("300")
    open("/proc/self/coredump_filter", "w").write("0x7f")
    assert libc.personality(0x0040000) >= 0  # no randomisation
    assert libc.prctl(PR_SET_TIMERSLACK, 1_000_000, 0, 0, 0) == 0
    assert libc.prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0
    libc.syscall(keyctl, 1, b"odd-caller")
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD, signal.SIGWINCH, signal.SIGTSTP, signal.SIGRTMIN + 3):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2, signal.SIGALRM, signal.SIGQUIT, signal.SIGRTMAX])
    capabilities = int(next(line for line in open("/proc/self/status") if line.startswith("CapEff")).split()[1], 16)
    raises = capabilities >> 24 & 1  # SYS_RESOURCE: without it no program raises a hard limit again
    def lower(limit, soft, hard):
        most = resource.getrlimit(limit)[1]
        hard = hard if raises else most
        resource.setrlimit(limit, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
    for name, limits in {
        "CPU": (3000, 4000), "FSIZE": (1 << 30, 1 << 31), "DATA": (1 << 36, 1 << 37), "STACK": (4 << 20, 16 << 20),
        "CORE": (1 << 20, 1 << 21), "RSS": (1 << 36, 1 << 37), "NPROC": (3000, 4000), "NOFILE": (256, 2000),
        "MEMLOCK": (1 << 16, 1 << 17), "AS": (1 << 44, 1 << 45), "SIGPENDING": (100, 200), "MSGQUEUE": (1000, 2000),
        "NICE": (5, 10), "RTPRIO": (5, 10), "RTTIME": (10**6, 10**7),
    }.items():
        lower(getattr(resource, "RLIMIT_" + name), *limits)
    lower(10, 5, 5)  # RLIMIT_LOCKS, which Linux ignores
    os.environ.update(LC_ALL="tr_TR.ISO-8859-9", LANG="de_DE", LANGUAGE="de", TZ="Asia/Kolkata", TERM="odd", COLUMNS="7")
    assert libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0
    for number in range(3):
        os.close(number)

from microsandbox import Sandbox, Volume

async def main():
    volume = await Volume.create("data")
    await volume.fs.mkdir("/made")
    box = await Sandbox.create("box", image="host", volumes={"/data": Volume.named("data")}, scripts={"script": "true"})
    async with box:
        await box.fs.mkdir("/srv/a/b")
        await box.fs.write("/srv/a/b/file", b"x")
        out = await box.exec("python3", ["-c", sys.argv[2]], user="nobody")
        os.write(result, out.stdout_bytes if out.success else out.stderr_bytes)
    await Volume.remove("data")

asyncio.run(main())
"""


async def seen_by(harness: Harness, kind: str) -> dict[str, Any]:
    """What a program sees in a sandbox that such a caller created."""
    chosen = {"MSB_ISOLATION": harness.kind}
    if harness.server is not None:
        chosen = {"MSB_BACKEND": "cloud", "MSB_API_URL": harness.server.url, "MSB_API_KEY": harness.server.key}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CALLER, kind, PROBE),
        env={**os.environ, **chosen, "PYTHONWARNINGS": "ignore"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), within(60))
    except asyncio.TimeoutError:
        process.kill()
        out, err = await process.communicate()
        pytest.fail(f"the {kind} caller hangs\n{out.decode()}\n{err.decode()}")
    assert process.returncode == 0, f"{out.decode()}\n{err.decode()}"
    assert out.startswith(b"{"), out.decode()
    seen: dict[str, Any] = json.loads(out)
    return seen


@pytest.mark.root
async def test_nothing_of_an_odd_caller_shows_inside(harness: Harness) -> None:
    plain = await seen_by(harness, "plain")
    odd = await seen_by(harness, "odd")
    assert odd == plain


@pytest.mark.root
async def test_a_program_starts_as_programs_expect(harness: Harness) -> None:
    import resource

    seen = await seen_by(harness, "odd")
    assert seen["umask"] == "0o22"
    assert (seen["nice"], seen["ioprio"], seen["policy"], seen["personality"], seen["dumpable"]) == (0, 0, 0, 0, 1)
    # In a machine it is that of its own kernel, for which the monitor is the process.
    assert seen["oom_score_adj"] == ("0\n" if harness.kind == "microvm" else "500\n")
    assert int(seen["coredump_filter"], 16) == 0x33
    assert (seen["timer slack"], seen["huge pages"]) == (50_000, 0)
    _, pending, shared, blocked, ignored, _ = (word.split("/")[0] for word in seen["signals"])
    # Python itself ignores SIGPIPE and SIGXFSZ.
    assert [int(word, 16) for word in (pending, shared, blocked, ignored)] == [0, 0, 0, 0x0100_1000]
    limits = {name.removeprefix("RLIMIT_"): tuple(pair) for name, pair in seen["limits"].items()}
    soft, hard = limits.pop("NOFILE")
    # Where a hard limit may not be raised, the caller's own.
    assert soft == 1024 and 4096 <= hard <= 65_536
    pending, most = limits.pop("SIGPENDING")
    assert pending == most <= 16_384
    for name in ("NPROC", "OFILE"):
        limits.pop(name, None)
    unlimited = resource.RLIM_INFINITY
    assert limits == {
        **dict.fromkeys(("CPU", "FSIZE", "DATA", "RSS", "AS", "RTTIME"), (unlimited, unlimited)),
        **dict.fromkeys(("CORE", "NICE", "RTPRIO"), (0, 0)),
        "STACK": (8 << 20, unlimited),
        "MEMLOCK": (8 << 20, 8 << 20),
        "MSGQUEUE": (409_600, 409_600),
    }
    assert seen["modes"] == ["0o644", "0o644", "0o644", "0o755", "0o755", "0o1777", "0o1777", "0o755"]
    assert all(seen["read"])
