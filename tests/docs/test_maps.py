"""The map of the repository in CONTRIBUTING.md: every crate and every directory of the repository is on it."""

from __future__ import annotations

import re
import subprocess

from homes import REPOSITORY


def on_the_map() -> set[str]:
    section = (REPOSITORY / "CONTRIBUTING.md").read_text().split("## Where things are", 1)[1].split("\n## ", 1)[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {path for row in rows for path in re.findall(r"`([^`]+)`", row)}


def tracked() -> list[str]:
    done = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_every_crate_is_on_the_map() -> None:
    crates = {path.rsplit("/", 1)[0] for path in tracked() if re.fullmatch(r"rust/[^/]+/Cargo\.toml", path)}
    assert crates - on_the_map() == set()


def test_every_directory_is_on_the_map_or_below_one() -> None:
    tops = {path.split("/", 1)[0] for path in tracked() if "/" in path}
    described = {path.split("/", 1)[0] for path in on_the_map()}
    assert {top for top in tops if not top.startswith(".")} - described == set()
