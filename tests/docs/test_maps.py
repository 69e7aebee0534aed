"""The maps are true: every crate stands on one, every top module on that of its crate, and what a map names exists."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from homes import REPOSITORY

CRATES = sorted(path.parent for path in (REPOSITORY / "rust").glob("*/Cargo.toml"))
MODULE = re.compile(r"^(?:pub(?:\(crate\))? )?mod (\w+)(?:;| \{)", re.MULTILINE)
# In the first column of a table: [`name`] is a module; `a` … `z` stands for all between the two.
LINK = re.compile(r"\[`(\w+)`\]")
RANGE = re.compile(r"`(\w+)` … `(\w+)`")
# Crates whose map is not complete yet. It only gets shorter.
INCOMPLETE = {"agent", "bindings", "cli", "core", "runtime", "server", "vmm"}
UNMAPPED = {"server", "vmm", "wire"}


def root_file(crate: Path) -> Path:
    """The file whose comment is the map: that of the library, else that of the program."""
    library = crate / "src" / "lib.rs"
    return library if library.exists() else crate / "src" / "main.rs"


def first_column(text: str) -> str:
    """The first cells of the table in the comment of a crate."""
    rows = re.findall(r"^//! \|(.*?)\|", text, re.MULTILINE)
    return "\n".join(rows[2:])


def named(text: str, modules: set[str]) -> set[str]:
    """The modules that the table of a crate names."""
    column = first_column(text)
    found = set(LINK.findall(column))
    for first, last in RANGE.findall(column):
        found |= {module for module in modules if first <= module <= last or module in (first, last)}
    return found


def maps() -> str:
    return "".join((REPOSITORY / name).read_text() for name in ("DESIGN.md", "CONTRIBUTING.md"))


def test_every_crate_stands_on_a_map() -> None:
    text = maps()
    missing = {crate.name for crate in CRATES if not re.search(rf"\brust/{crate.name}\b", text)}
    assert missing <= UNMAPPED, f"neither DESIGN.md nor CONTRIBUTING.md names rust/ {sorted(missing - UNMAPPED)}"


def test_every_path_on_a_map_exists() -> None:
    paths = set(re.findall(r"`((?:rust|tests|python|benches|scripts|docs)/[\w./-]+)`", maps()))
    assert len(paths) > 10
    assert [path for path in sorted(paths) if not (REPOSITORY / path).exists()] == []


@pytest.mark.parametrize("crate", CRATES, ids=lambda crate: crate.name)
def test_every_top_module_stands_on_its_crates_map(crate: Path) -> None:
    text = root_file(crate).read_text()
    modules = set(MODULE.findall(text)) - {"tests", "_microsandbox"}
    if len(modules) <= 1:
        return
    on_map = named(text, modules)
    again = set(re.findall(r"^pub use [\w:]+::(\w+);", text, re.MULTILINE))
    assert on_map <= modules | again, f"{crate.name}: the map names modules that do not exist"
    if crate.name not in INCOMPLETE:
        assert modules <= on_map, f"{crate.name}: modules that are not on the map"


def test_a_map_with_a_gap_is_noticed() -> None:
    text = "//! | module | holds |\n//! |---|---|\n//! | [`a`], [`b`] | x |\n//! | `run` … `stop` | y |\nmod a;\nmod b;\nmod c;\nmod start;\n"
    modules = set(MODULE.findall(text))
    assert modules - named(text, modules) == {"c"}


def test_every_directory_of_the_repository_is_on_the_map() -> None:
    done = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    tops = {path.split("/", 1)[0] for path in done.stdout.splitlines() if "/" in path}
    section = (REPOSITORY / "CONTRIBUTING.md").read_text().split("## Where things are", 1)[1].split("\n## ", 1)[0]
    missing = {top for top in tops if not top.startswith(".") and not re.search(rf"`{top}[`/]", section)}
    assert missing == set()
