"""H2: a sandbox takes all that it gets of every table of the kernel; host root and another sandbox get theirs as before."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import re
import resource
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from clients import said_by
from microsandbox import Rlimit, Stdin

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="tables.py has x86-64 system call numbers"),
    pytest.mark.root,
]

Make = Callable[..., Awaitable[Any]]
PROGRAM = Path(__file__).with_name("tables.py")
SECURITY = Path(__file__).parents[2] / "SECURITY.md"
# Settings with such a name bound something that is counted ...
LIMIT = re.compile(r"max|limit|nr_open|mni$|mnb$|shmall|pages-|/sem$|reserve")
# ... but for these, which bound no table: what one call or one process may do, statistics, and what the kernel does on faults.
NO_TABLE = re.compile(
    r"perf_|_panic|_limit$|ratelimit|lock_depth|ngroups_max|sched_|hardlockup|kernel/(msgmax|shmmax|cap_last_cap|core_)|fuse/"
    r"|promote_rate_limit|max_queued_events|pipe-max-size|mqueue/msg|fs/xfs|fanotify/(max_queued|watchdog)|usermodehelper|oops|warn|split_lock"
    r"|min_reseed|numa_"
)


async def tried(box: Any) -> dict[str, Any]:
    output = await box.exec("python3", ["-c", PROGRAM.read_text(), "try"])
    assert output.success, output.stderr_text
    answer: dict[str, Any] = json.loads(output.stdout_text)
    return answer


def tried_outside() -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(said_by(PROGRAM, "try"))
    return answer


@pytest.mark.hazard("R3")
async def test_one_sandbox_takes_no_table_from_others(make: Make) -> None:
    greedy, sibling = await make("greedy", memory=256), await make("sibling")
    outside, beside = tried_outside(), await tried(sibling)
    assert set(outside.values()) == {"ok", 64, 65_536}, outside
    assert beside == {**outside, "asynchronous contexts": "ENOSYS"}
    handle = await greedy.exec_stream("python3", ["-c", PROGRAM.read_text(), "hold"], stdin=Stdin.pipe())
    said = b""
    async for event in handle:
        said += event.data or b""
        if said.endswith(b"\n"):
            break
    taken = json.loads(said)
    during = tried_outside(), await tried(sibling)
    await handle.kill()
    assert during == (outside, beside), taken
    counts = {table: [count for count, _, _ in rows] for table, rows in taken.items()}
    # Of every user inside together: the ceilings of its user namespace, of its creator, of its own mount of terminals.
    assert max(counts["inotify instances"]) <= 64 and sum(counts["inotify instances"]) <= 128, taken
    assert 10_000 < sum(counts["queued signals"]) <= 16_384, taken
    assert 1 <= sum(counts["message queues"]) <= 5, taken
    assert 1 <= sum(counts["terminals"]) <= 64, taken
    assert max(counts["locked memory"]) <= 8, taken
    assert all(why == "ENOSYS" for _, why, _ in taken["asynchronous contexts"]), taken


@pytest.mark.hazard("R3")
async def test_limits_inside_are_lowered_and_can_be_asked_for(make: Make) -> None:
    script = """
import json, resource
from pathlib import Path
names = ("NOFILE", "MEMLOCK", "SIGPENDING", "MSGQUEUE")
limits = {name: resource.getrlimit(getattr(resource, "RLIMIT_" + name)) for name in names}
user = {path.name: int(path.read_text()) for path in Path("/proc/sys/user").iterdir()}
print(json.dumps([limits, user]))
"""
    limits, user = json.loads((await (await make()).exec("python3", ["-c", script])).stdout_text)
    assert limits["NOFILE"][0] == 1024 and limits["NOFILE"][1] <= 65_536 and limits["MEMLOCK"] == [8 << 20, 8 << 20]
    assert limits["SIGPENDING"][1] <= 16_384 and limits["MSGQUEUE"] == [409_600, 409_600]
    assert (user["max_inotify_instances"], user["max_inotify_watches"], user["max_user_namespaces"]) == (64, 65_536, 0)
    # As much as this process may give away: without CAP_SYS_RESOURCE no limit is raised.
    files, locked = (resource.getrlimit(number)[1] for number in (resource.RLIMIT_NOFILE, resource.RLIMIT_MEMLOCK))
    files, locked = min(files, 200_000), 64 << 20 if locked < 0 else min(locked, 64 << 20)
    more = [Rlimit.nofile(files), Rlimit.memlock(locked)]
    asked, _ = json.loads((await (await make("more", rlimits=more)).exec("python3", ["-c", script])).stdout_text)
    assert asked["NOFILE"] == [files, files] and asked["MEMLOCK"] == [locked, locked]


def test_every_limit_of_this_kernel_is_in_the_document() -> None:
    text = SECURITY.read_text()
    settings = {
        str(path.relative_to("/proc/sys"))
        for part in ("fs", "kernel", "user")
        for path in Path("/proc/sys", part).rglob("*")
        if path.is_file() and LIMIT.search(str(path)) and not NO_TABLE.search(str(path))
    }
    missing = sorted(name for name in settings if f"`{name.replace('/', '.')}`" not in text)
    assert not missing, f"SECURITY.md does not say what a sandbox can take of {missing}"


def dirty_pages(file: Any) -> int:
    """Pages of a file that are not on the disk yet: cachestat(2), Linux 6.5."""
    libc = ctypes.CDLL(None, use_errno=True)
    counts = (ctypes.c_uint64 * 5)()
    if libc.syscall(451, file.fileno(), (ctypes.c_uint64 * 2)(), counts, 0):
        pytest.skip("this kernel has no cachestat")
    return counts[1]


# Anything else on the machine may write back as well.
@pytest.mark.alone
@pytest.mark.hazard("R3")
async def test_a_guests_sync_writes_back_nothing_of_others(make: Make, tmp_path: Path) -> None:
    box = await make()
    with (tmp_path / "dirty").open("wb") as file:
        file.write(bytes(8 << 20))
        file.flush()
        before = dirty_pages(file)
        output = await box.exec("python3", ["-c", "import os; os.sync()"])
        after = dirty_pages(file)
        os.sync()
        if not before or dirty_pages(file):
            pytest.skip("files here are in memory, or on the disk at once")
    assert output.success and after == before
