"""The Python tests: as many runs in parallel as this machine has processors, then the tests that must run alone.

Each run is a pytest of its own with every N-th test (`--share`). The first run prints as it goes, the others when they
end. Tests marked `alone` follow in one run. Processes, mounts and control groups that belong to no single run are
compared once, before the first run and after the last. MSB_TEST_SHARES sets the number of runs. Arguments go to pytest:
after `--shares` to each of the runs, else to the only one.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "plugins"))
PYTEST = [sys.executable, "-m", "pytest", "-c", "tests/pytest.ini", "--rootdir", ".", "-rs"]
# pytest's status when no test was selected.
NO_TESTS = 5
MOST = 4
SLOWEST = ("-p", "no:cacheprovider", "--durations", "15", "--durations-min", "3")


def run(*arguments: str, output: Path | None = None, neighbours: bool = False) -> subprocess.Popen[bytes]:
    environment = dict(os.environ)
    if neighbours:
        environment["MSB_TEST_NEIGHBOURS"] = "1"
    with output.open("wb") if output else open(os.dup(1), "wb") as stream:
        return subprocess.Popen(
            [*PYTEST, *arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT if output else None,
        )


def in_shares(count: int, directory: Path, selected: list[str]) -> bool:
    """Whether every share passed."""
    flags = [*selected, "-m", "not alone and not long", *SLOWEST]
    printed = {number: directory / f"share-{number}" for number in range(2, count + 1)}
    shares = {
        number: run(*flags, "--share", f"{number}/{count}", output=printed.get(number), neighbours=True)
        for number in range(1, count + 1)
    }
    passed = True
    for number, process in shares.items():
        passed &= process.wait() == 0
        if number in printed:
            print(f"== share {number} of {count}", flush=True)
            sys.stdout.buffer.write(printed[number].read_bytes())
            sys.stdout.flush()
    return passed


def left_behind(before: object) -> list[str]:
    """What no run cleaned up, and no deadline of theirs could see."""
    from leaks import GRACE, Snapshot

    assert isinstance(before, Snapshot)
    deadline = time.monotonic() + GRACE
    while left := before.leaked_since():
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    return left


def main() -> int:
    arguments = sys.argv[1:]
    if arguments and arguments[0] != "--shares":
        return run(*arguments).wait()
    selected = arguments[1:] or ["tests"]
    from leaks import PR_SET_CHILD_SUBREAPER, Snapshot

    # Orphans of the runs become children of this process, where they are found.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    count = int(os.environ.get("MSB_TEST_SHARES") or min(os.cpu_count() or 1, MOST))
    passed = True
    with tempfile.TemporaryDirectory(prefix="msb-shares") as directory:
        # Others write to /tmp as well: files are compared by each run, in its own directory.
        tempfile.tempdir = f"{directory}/unused"
        before = Snapshot.take()
        passed &= in_shares(count, Path(directory), selected)
        print("== tests that run alone", flush=True)
        passed &= run(*selected, "-m", "alone and not long", *SLOWEST).wait() in (0, NO_TESTS)
        for line in left_behind(before):
            print(f"left behind by the tests: {line}", file=sys.stderr)
            passed = False
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
