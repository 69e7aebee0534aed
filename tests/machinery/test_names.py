"""Names of tests are sentences of at most 60 characters; what they hold is a mark, not a code in the name."""

from __future__ import annotations

import re
import sys

import pytest
from homes import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "scripts"))
import marks

LONGEST = 60
CODE = re.compile(r"^(?:test_)?(?:DB|[AFIPXLSREVNCG])\d+_|_cases?_\d+", re.IGNORECASE)
# Crates whose names are not all sentences yet. It only gets shorter.
UNFINISHED = ("rust/cli/",)
TESTS = [test for test in marks.tests() if not test.path.startswith(UNFINISHED)]


def wrong(name: str) -> bool:
    return len(name) > LONGEST or CODE.search(name) is not None


def test_names_are_sentences_of_at_most_60_characters() -> None:
    assert len(TESTS) > 1000
    assert [f"{test.path}::{test.name}" for test in TESTS if wrong(test.name)] == []


@pytest.mark.parametrize("name", ["test_E15_the_report", "p1_lengths", "a_key_is_used_case_20", "x" * 61])
def test_a_code_or_a_long_name_is_noticed(name: str) -> None:
    assert wrong(name)


def test_marks_are_read_from_both_languages() -> None:
    python = '@pytest.mark.hazard("E15", "E16")\n@pytest.mark.case(20)\nasync def test_it() -> None: ...\n'
    rust = "// hazard: E15, E16\n// case: 20\n#[tokio::test]\nasync fn it() {}\n\n#[test]\nfn other() {}\n"
    [first] = marks.python_tests(python, "a.py")
    assert (first.hazards, first.cases) == (("E15", "E16"), (20,))
    second, third = marks.rust_tests(rust, "a.rs")
    assert (second.hazards, second.cases) == (first.hazards, first.cases)
    assert (third.name, third.hazards, third.cases) == ("other", (), ())
