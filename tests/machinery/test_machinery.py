"""The checks can fail: each is shown a fault that it must see."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from homes import REPOSITORY
from leaks import group_name, is_ours
from pace import within
from wire import cbor, uncbor

PLUGINS = REPOSITORY / "tests" / "plugins"


def run(tmp_path: Path, body: str, **environment: str) -> str:
    """The output of pytest on one test with that body, under the leak check alone."""
    file = tmp_path / "test_leaky.py"
    file.write_text(
        "import os, subprocess, sys, tempfile\n\ndef test_it():\n" + textwrap.indent(textwrap.dedent(body), "    ")
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "leaks",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:asyncio",
        "-c",
        os.devnull,
        "--rootdir",
        tmp_path,
        file,
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(PLUGINS), "MSB_LEAK_GRACE": "0.2", **environment},
    )
    return done.stdout + done.stderr


def test_a_clean_test_passes(tmp_path: Path) -> None:
    assert "1 passed" in run(tmp_path, "subprocess.run(['true'], check=True)")


def test_a_left_file_is_seen(tmp_path: Path) -> None:
    out = run(tmp_path, "tempfile.mkdtemp(prefix='forgotten')")
    assert "left behind" in out and "forgotten" in out


def test_a_left_process_is_seen(tmp_path: Path) -> None:
    # It ends after two seconds: the check itself must not leak.
    out = run(tmp_path, "subprocess.Popen(['sleep', '2'])")
    assert "left behind" in out and "'sleep'" in out


def test_an_orphan_of_an_orphan_is_seen(tmp_path: Path) -> None:
    out = run(tmp_path, "subprocess.run(['sh', '-c', 'setsid sleep 2 >/dev/null 2>&1 &'], check=True)")
    assert "left behind" in out and "'sleep'" in out


@pytest.fixture
def empty_group() -> Iterator[Path]:
    """A control group that a test may make; removed afterwards."""
    root = Path("/sys/fs/cgroup")
    parent = next((p for p in (root, root / "unified", root / "pids") if (p / "cgroup.procs").exists()), None)
    if parent is None:
        pytest.skip("no control groups on this machine")
    group = parent / f"msb-leak-check-{os.getpid()}"
    yield group
    if group.exists():
        group.rmdir()


needs_root = pytest.mark.skipif(os.getuid() != 0, reason="making a control group needs root")


@pytest.mark.root
@needs_root
def test_a_left_control_group_is_seen(tmp_path: Path, empty_group: Path) -> None:
    out = run(tmp_path, f"os.mkdir({str(empty_group)!r})", MSB_TEST_NEIGHBOURS="")
    empty_group.rmdir()
    assert "left behind" in out and empty_group.name in out


@pytest.mark.root
@needs_root
def test_a_neighbours_control_group_is_not_counted(tmp_path: Path, empty_group: Path) -> None:
    out = run(tmp_path, f"os.mkdir({str(empty_group)!r})", MSB_TEST_NEIGHBOURS="1")
    empty_group.rmdir()
    assert "1 passed" in out, out


@pytest.mark.root
@needs_root
def test_the_own_control_group_is_seen_beside_neighbours(tmp_path: Path, empty_group: Path) -> None:
    mine = f"{empty_group.parent}/msb-leak-check-"
    out = run(tmp_path, f"os.mkdir({mine!r} + str(os.getpid()))", MSB_TEST_NEIGHBOURS="1")
    for group in empty_group.parent.glob("msb-leak-check-*"):
        group.rmdir()
    assert "left behind" in out and "msb-leak-check-" in out, out


async def test_the_control_group_of_a_sandbox_is_known_as_ours(make: Callable[..., Awaitable[Any]], home: Path) -> None:
    report = await (await make()).isolation_report()
    if not any(m.name == "pids_limit" and str(m.state) == "on" for m in report.mechanisms):
        pytest.skip("no control group can be made on this machine")
    name = group_name(home / "sandboxes" / "box")
    groups = [path for path in Path("/sys/fs/cgroup").rglob(name) if path.is_dir()]
    assert groups and all(is_ours(group) for group in groups)
    assert not is_ours(groups[0].with_name(group_name(Path("/another/home/sandboxes/box"))))


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        23,
        24,
        255,
        256,
        65536,
        2**32,
        2**64 - 1,
        -1,
        -500,
        b"",
        b"x" * 300,
        "ü",
        [1, [2]],
        {"a": {"b": b""}},
    ],
)
def test_the_second_codec_is_its_own_inverse(value: object) -> None:
    assert uncbor(cbor(value)) == value


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """A repository in which `scripts/check_claims.py` finds nothing wrong but what a test puts there."""
    for name in ("scripts", "benches", "docs", "tests", "rust"):
        (tmp_path / name).mkdir()
    for name in ("check_claims.py", "marks.py"):
        (tmp_path / "scripts" / name).write_text((REPOSITORY / "scripts" / name).read_text())
    for name in (
        "README.md",
        "DESIGN.md",
        "SECURITY.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "benches/README.md",
        "docs/findings.md",
    ):
        (tmp_path / name).write_text("fine\n")
    (tmp_path / "tests/test_x.py").write_text('@pytest.mark.hazard("A1")\n@pytest.mark.case(1)\ndef test_it(): ...\n')
    held = "`tests/test_x.py::test_it`"
    (tmp_path / "docs/claims.md").write_text(f"| claim | held by |\n|---|---|\n| it flies | {held} |\n")
    head = "| code | what can go wrong | what the product does | held by |\n|---|---|---|---|\n"
    (tmp_path / "docs/hazards.md").write_text(f"{head}| A1 | falls | flies | {held} |\n")
    lines = [f"| {number} | what | {held} | |\n" for number in range(1, 102)]
    (tmp_path / "docs/backend-cases.md").write_text("".join(lines))
    return tmp_path


def checked(documents: Path) -> str:
    """What `scripts/check_claims.py` complains about."""
    command = [sys.executable, documents / "scripts" / "check_claims.py"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode == 0) is (done.stderr == ""), done
    return done.stderr


WRONG = {
    "a claim of an absent test": ("docs/claims.md", "test_it`", "test_other`", "test_other does not exist"),
    "a claim of nothing": ("docs/claims.md", "`tests/test_x.py::test_it`", "trust", "nothing holds the claim"),
    "a hazard of nothing": ("docs/hazards.md", "`tests/test_x.py::test_it`", "trust", "A1 names no test"),
    "a hazard of another mark": ("docs/hazards.md", "| A1 |", "| A2 |", "does not carry that mark"),
    "a mark without a row": ("tests/test_x.py", '"A1"', '"A1", "Z9"', "marked Z9, which has no row"),
    "a case of nothing": ("docs/backend-cases.md", "| 2 | what | `tests", "| 2 | what | `no", "case 2 names no test"),
    "a case that is missing": ("docs/backend-cases.md", "| 101 |", "| x |", "not one line for each"),
    "a marked case elsewhere": (
        "tests/test_x.py",
        "def test_it",
        "def test_it(): ...\n@pytest.mark.case(7)\ndef test_b",
        "case 7 does not name",
    ),
    "a claim of README alone": (
        "README.md",
        "fine",
        "## What is claimed\n\n| a | b |\n|---|---|\n| c | d |",
        "is not in docs/claims.md",
    ),
    "a word": ("DESIGN.md", "fine", "secure", "the word 'secure'"),
    "a broken link": ("DESIGN.md", "fine", "[x](no/such.md)", "broken link no/such.md"),
    "a missing document": ("DESIGN.md", "", "", "DESIGN.md: missing"),
}


def test_the_claims_check_accepts_what_is_right(documents: Path) -> None:
    assert checked(documents) == ""


@pytest.mark.parametrize("kind", list(WRONG))
def test_the_claims_check_sees_what_is_wrong(documents: Path, kind: str) -> None:
    name, old, new, complaint = WRONG[kind]
    path = documents / name
    assert old in path.read_text()
    if old:
        path.write_text(path.read_text().replace(old, new, 1))
    else:
        path.unlink()
    assert complaint in checked(documents)


def collect(*arguments: str) -> str:
    command = [sys.executable, "-m", "pytest", "-c", "tests/pytest.ini", "--rootdir", ".", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "--collect-only", "-q", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=within(60),
    )
    return done.stdout + done.stderr


def test_a_backend_is_chosen_by_name() -> None:
    out = collect("--backend", "microvm", "tests/conformance/test_files.py")
    assert "[microvm" in out and "[container" not in out
    assert "no such backend: virtualbox" in collect("--backend", "virtualbox", "tests/conformance/test_files.py")


def test_tests_of_the_microvm_run_only_where_it_is_chosen() -> None:
    everywhere = collect("tests")
    assert "tests/microvm" not in everywhere and "tests/conformance" in everywhere
    assert "tests/microvm/test_faults.py::" in collect("--backend", "microvm", "tests/microvm")


def test_the_setting_for_slow_machines_reaches_every_deadline(tmp_path: Path) -> None:
    file = tmp_path / "test_pace.py"
    file.write_text(
        "from pace import within\n\ndef test_it(request):\n    assert within(2) == 10\n    assert request.config.option.timeout == 600\n"
    )
    command = [sys.executable, "-m", "pytest", "-c", REPOSITORY / "tests" / "pytest.ini", "--rootdir", tmp_path]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", file],
        capture_output=True,
        text=True,
        timeout=within(60),
        env={**os.environ, "MSB_TEST_SLOWNESS": "5"},
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_shares_divide_the_tests_and_leave_none_out() -> None:
    def tests(*arguments: str) -> list[str]:
        return [line for line in collect("tests/conformance/test_logs.py", *arguments).splitlines() if "::" in line]

    shares = [tests("--share", f"{number}/3") for number in (1, 2, 3)]
    assert sorted(test for share in shares for test in share) == sorted(tests())
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert "1 <= K <= N" in collect("tests/conformance/test_logs.py", "--share", "4/3")
