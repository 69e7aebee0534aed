"""The tests of this repository, Python and Rust, with their marks: the hazards and the cases of the backends they hold.

Python: `@pytest.mark.hazard("E15")` and `@pytest.mark.case(20, 22)`. Rust: `// hazard: E15` and `// case: 20, 22`
directly above the attributes of the test.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUST_TEST = re.compile(r"\s*#\[(?:tokio::)?test\b")
RUST_FUNCTION = re.compile(r"\s*(?:pub )?(?:async )?fn (\w+)")
RUST_MARK = re.compile(r"\s*// (hazard|case): (.+)")


@dataclass(frozen=True)
class Test:
    """One test function: its file beneath the repository, its name, what it holds."""

    __test__ = False

    path: str
    name: str
    hazards: tuple[str, ...] = ()
    cases: tuple[int, ...] = ()


def tests(root: Path = ROOT) -> Iterator[Test]:
    """Every test, by file."""
    for path in sorted((root / "tests").rglob("test_*.py")):
        yield from python_tests(path.read_text(), path.relative_to(root).as_posix())
    for path in sorted((root / "rust").glob("*/**/*.rs")):
        if "target" not in path.parts:
            yield from rust_tests(path.read_text(), path.relative_to(root).as_posix())


def python_tests(text: str, path: str) -> Iterator[Test]:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            marks: dict[str, list[object]] = {"hazard": [], "case": []}
            for decorator in node.decorator_list:
                name = ast.unparse(decorator).partition("(")[0].removeprefix("pytest.mark.")
                if isinstance(decorator, ast.Call) and name in marks:
                    marks[name] += [argument.value for argument in decorator.args if isinstance(argument, ast.Constant)]
            yield Test(path, node.name, tuple(map(str, marks["hazard"])), tuple(int(str(n)) for n in marks["case"]))


def rust_tests(text: str, path: str) -> Iterator[Test]:
    marks: dict[str, list[str]] = {"hazard": [], "case": []}
    is_test = False
    for line in text.splitlines():
        if mark := RUST_MARK.match(line):
            marks[mark[1]] += [word.strip() for word in mark[2].split(",")]
        elif RUST_TEST.match(line):
            is_test = True
        elif function := RUST_FUNCTION.match(line):
            if is_test:
                yield Test(path, function[1], tuple(marks["hazard"]), tuple(map(int, marks["case"])))
            marks, is_test = {"hazard": [], "case": []}, False
