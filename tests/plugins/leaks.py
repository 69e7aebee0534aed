"""A test must leave the machine as it found it.

Before and after every test: the processes that descend from this one (orphans become its children, it is their
subreaper), the mounts beneath the places where tests keep files, empty control groups, temporary files and shared
memory. A difference that persists for `GRACE` seconds fails the test that made it.

Where several runs share the machine (`MSB_TEST_NEIGHBOURS`, set by scripts/run_python_tests.py), mounts and control groups count only
if they belong to this run: to its temporary directory or to a home that it made. What belongs to no run is compared once
for all of them, before the first and after the last.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from homes import LIVE, PLACE
from pace import within

GRACE = within(float(os.environ.get("MSB_LEAK_GRACE", "5")))
PR_SET_CHILD_SUBREAPER = 36
CGROUPS = Path("/sys/fs/cgroup")
NEIGHBOURS = bool(os.environ.get("MSB_TEST_NEIGHBOURS"))
# Beside the temporary directory: pytest's own, in which `tmp_path` is.
OWN_TREES: set[str] = set()


@dataclass(frozen=True)
class Process:
    """Pid and start time: a pid alone may mean another process by now."""

    pid: int
    start: int
    parent: int
    state: str
    name: str

    def __str__(self) -> str:
        return f"process {self.pid} {self.name!r}"


def read_process(pid: int) -> Process | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    name = text[text.index("(") + 1 : text.rindex(")")]
    rest = text[text.rindex(")") + 2 :].split()
    return Process(pid=pid, start=int(rest[19]), parent=int(rest[1]), state=rest[0], name=name)


def descendants(root: int | None = None) -> set[Process]:
    """Every process below `root` (this one), zombies that are not ours to reap left out."""
    root = root or os.getpid()
    everyone = [p for p in map(read_process, (int(d) for d in os.listdir("/proc") if d.isdigit())) if p]
    children: dict[int, list[Process]] = {}
    for process in everyone:
        children.setdefault(process.parent, []).append(process)
    found: set[Process] = set()
    queue = [root]
    while queue:
        for child in children.get(queue.pop(), ()):
            found.add(child)
            queue.append(child.pid)
    return found


def reap() -> None:
    """Takes in the orphans that ended here. Children that a Popen object still waits for keep their status."""
    import subprocess

    waited = {p.pid for p in getattr(subprocess, "_active", [])}
    for process in descendants():
        if process.state == "Z" and process.parent == os.getpid() and process.pid not in waited:
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG)


def own_places() -> tuple[str, ...]:
    """The directories that only this run writes to."""
    return (f"{tempfile.gettempdir()}/", *(f"{path}/" for path in OWN_TREES), *(f"{home}/" for home in LIVE))


def mounts() -> set[str]:
    """Mount points beneath the directories that tests write to; those of others on this machine are not ours."""
    places = own_places()
    if not NEIGHBOURS:
        places += (f"{PLACE}/", "/tmp/", "/var/tmp/", "/dev/shm/", "/run/netns")
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = (line.split()[4] for line in lines)
    return {f"mount {point}" for point in points if f"{point}/".startswith(places)}


def group_name(sandbox: Path) -> str:
    """The control group of a sandbox: its name and the FNV-1a digest of its directory (rust/cgroups)."""
    digest = 0xCBF29CE484222325
    for byte in os.fsencode(sandbox):
        digest = (digest ^ byte) * 0x100000001B3 % 2**64
    return f"msb-{sandbox.name}-{digest:016x}"


def is_ours(group: Path) -> bool:
    """Whether a control group belongs to this run: named after this process, or that of a sandbox in a home of this run."""
    if any(part.endswith(f"-{os.getpid()}") for part in group.parts):
        return True
    name = group.name.removeprefix("msb-").rpartition("-")[0]
    return any(group.name == group_name(home / "sandboxes" / name) for home in LIVE)


def cgroups() -> set[str]:
    """Control groups without a process. A leaked one is empty; a live neighbour's is not."""
    found = set()
    for directory, children, files in os.walk(CGROUPS):
        if "cgroup.procs" in files and not children:
            with contextlib.suppress(OSError):
                if not Path(directory, "cgroup.procs").read_text() and (not NEIGHBOURS or is_ours(Path(directory))):
                    found.add(f"cgroup {directory}")
    return found


def files() -> set[str]:
    found = set()
    for place in (tempfile.gettempdir(),) if NEIGHBOURS else (tempfile.gettempdir(), "/dev/shm"):
        with contextlib.suppress(OSError):
            # pytest's own tmp_path tree stays until the session ends; in /dev/shm others work, too.
            ours = "msb" if place == "/dev/shm" else ""
            names = (n for n in os.listdir(place) if n.startswith(ours) and not n.startswith("pytest-of-"))
            found |= {f"file {place}/{name}" for name in names}
    return found


@dataclass
class Snapshot:
    processes: set[Process]
    others: set[str]

    @classmethod
    def take(cls) -> Snapshot:
        reap()
        return cls(processes=descendants(), others=mounts() | cgroups() | files())

    def leaked_since(self) -> list[str]:
        now = Snapshot.take()
        before = {(p.pid, p.start) for p in self.processes}
        new = [str(p) for p in now.processes if (p.pid, p.start) not in before]
        return sorted(new) + sorted(now.others - self.others)


def pytest_configure(config: pytest.Config) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become the subreaper of the tests' orphans")
    # Short, because socket paths are; our own, because a neighbour's files are no leak of ours.
    directory = tempfile.mkdtemp(prefix="msbt", dir=PLACE)
    os.environ["TMPDIR"] = directory
    tempfile.tempdir = directory
    config.stash[TEMPORARY] = directory


def pytest_unconfigure(config: pytest.Config) -> None:
    import shutil

    shutil.rmtree(config.stash[TEMPORARY], ignore_errors=True)


TEMPORARY: pytest.StashKey[str] = pytest.StashKey()


@pytest.fixture(autouse=True)
def leaves_nothing_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Autouse and without dependencies, so it is set up before and checked after every other fixture of a test."""
    OWN_TREES.add(str(request.getfixturevalue("tmp_path_factory").getbasetemp()))
    before = Snapshot.take()
    yield
    if request.node.get_closest_marker("leaks"):
        return
    deadline = time.monotonic() + GRACE
    while leaked := before.leaked_since():
        if time.monotonic() > deadline:
            pytest.fail("left behind:\n  " + "\n  ".join(leaked), pytrace=False)
        time.sleep(0.02)
