"""Every program in examples/ runs, as a user would run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from homes import REPOSITORY
from registry import FakeRegistry

EXAMPLES = sorted((REPOSITORY / "examples").glob("*.py"))


def run(path: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, path, *arguments], capture_output=True, text=True, timeout=110, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.fresh_home
def test_the_quickstart_runs(home: Path, debian_archive: Path) -> None:
    out = run(REPOSITORY / "examples" / "quickstart.py", str(debian_archive))
    assert out.count("the result is correct") == 1
    assert out.count("the same result from Debian") == 1
    assert out.count("isolated by: container") == 2
    assert "gave the same, correct result and are removed" in out
    # Each step says how long it took.
    assert out.count(" ms  ") >= 12
    assert os.listdir(home / "sandboxes") == []


# What each of the others must say; a new example without an entry fails.
SAID = {
    "parallel.py": [
        "adds: status 0, printed '499999500000'",
        "fails: status 1, printed 'not today'",
        "never ends: ended after 3 seconds",
        "writes a file: status 0, printed 'mine'",
    ],
    "session.py": ["hello from session", "files: ['/inbox/poem.txt']", "got three", "kept: ['one', 'two', 'three']"],
}


def test_every_example_has_its_test() -> None:
    assert {path.name for path in EXAMPLES} == {"quickstart.py", *SAID}


@pytest.mark.parametrize("name", list(SAID))
def test_the_example_runs(home: Path, name: str) -> None:
    out = run(REPOSITORY / "examples" / name).splitlines()
    assert [line for line in SAID[name] if line not in out] == [], out
    assert os.listdir(home / "sandboxes") == []


def test_the_readmes_program_runs(home: Path, tmp_path: Path) -> None:
    """With the image that needs no network, which its comment names."""
    source = readmes_program()
    assert 'image="host"' in source
    program = tmp_path / "readme.py"
    program.write_text(source.replace("python:3.12", "host"))
    out = run(program)
    assert out.startswith("7\n 0\n")
    assert "container" in out


@pytest.mark.fresh_home
def test_the_readmes_program_pulls_its_image(
    home: Path, tmp_path: Path, fake_registry: FakeRegistry, debian_archive: Path
) -> None:
    reference = fake_registry.add(debian_archive, "python", "3.12")
    program = tmp_path / "readme.py"
    program.write_text(readmes_program().replace("python:3.12", reference))
    assert run(program).startswith("7\n 0\n")
    assert fake_registry.asked("/blobs/", "GET")


def readmes_program() -> str:
    text = (REPOSITORY / "README.md").read_text()
    return text.split("```python\n", 1)[1].split("```", 1)[0]
