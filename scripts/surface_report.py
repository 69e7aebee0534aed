"""The public surface with a test for each name, from the package's own source and stubs.

A name is a public class, function or constant of `microsandbox.__all__`, or a public method or property of such a
class. It has a test when a file of tests uses it: by attribute, by name, by keyword or by import. A class that no
test names is covered by its members, and by the tests that check all of `__all__`. Prints a table by section
of the specification, then the names without a test; exits with 1 if there is one. Run it as `python
scripts/surface_report.py`.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "python" / "microsandbox"

# Section of the specification (python-surface) for each module; all others are configuration.
SECTIONS = {
    "_sandbox": "3 Sandbox",
    "_handle": "4 SandboxHandle",
    "_calls": "4 SandboxHandle",
    "_fork": "4 SandboxHandle",
    "_compaction": "4 SandboxHandle",
    "_restore": "4 SandboxHandle",
    "_exec": "5 Exec",
    "_exec_request": "5 Exec",
    "_files": "6 Filesystem",
    "_logs": "7 Logs",
    "_metrics": "8 Metrics",
    "_metrics_stream": "8 Metrics",
    "_volume": "9 Volumes and mounts",
    "_mount": "9 Volumes and mounts",
    "_image": "10 Images",
    "_image_source": "10 Images",
    "_pull": "11 Pull progress",
    "_snapshot": "12 Snapshots",
    "_network": "13 Network",
    "_network_policy": "13 Network",
    "_ports": "13 Network",
    "_secrets": "14 Secrets",
    "_patch": "15 Patches",
    "_init": "16 Init and scripts",
    "_modify": "17 Modify",
    "_ssh": "18 SSH",
    "agent": "19 Agent client",
    "_backend": "20 Backend selection",
    "_jobs": "21 Jobs",
    "jobs": "21 Jobs",
    "_storage": "22 Storage",
    "setup": "23 Runtime setup",
    "errors": "24 Errors",
    "_enums": "25 Enums",
    "_progress": "36 Names of our own",
    "_isolation": "36 Names of our own",
    "_isolation_report": "36 Names of our own",
}
REST = "2 Configuration, 26 module-level names"
# Checks every name: exported, typed, with a docstring.
EVERY = "tests/python/test_surface.py"
# Not built yet: one test checks that all members are refused by name.
LATER = {"12 Snapshots", "13 Network", "14 Secrets", "18 SSH", "19 Agent client", "22 Storage"}


def homes() -> dict[str, str]:
    """Module of each public name, from the table in `__init__.py`."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_HOME":
            table: dict[str, str] = ast.literal_eval(node.value)
            return {name: module for module, names in table.items() for name in names.split()}
    raise LookupError("_HOME")


# The base of two classes, whose members are theirs.
SHARED = {"SandboxCalls": "_calls"}


def members(module: str, name: str) -> list[str]:
    """Public methods and properties of a class of that module; nothing for what is no class."""
    path = PACKAGE / f"{module}.py"
    path = path if path.exists() else PACKAGE / f"{module}.pyi"
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            is_enum = any(getattr(base, "id", "") in ("StrEnum", "Enum") for base in node.bases)
            named = (item.name for item in node.body if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)))
            shared = [base.id for base in node.bases if getattr(base, "id", "") in SHARED]
            inherited = [member for base in shared for member in members(SHARED[base], base)]
            own = {member for member in named if not member.startswith("_")}
            return [] if is_enum else sorted({*own, *inherited})
    return []


def used() -> dict[str, str]:
    """Every word that a test uses, and the first file that does."""
    seen: dict[str, str] = {}
    for path in sorted((ROOT / "tests").rglob("*.py")):
        where = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            words: list[str] = []
            match node:
                case ast.Attribute(attr=word) | ast.Name(id=word) | ast.keyword(arg=str(word)) | ast.alias(name=word):
                    words = [word]
                # Programs that tests give to other interpreters, and tables of names.
                case ast.Constant(value=str(text)) if len(text) < 20_000:
                    words = text.replace(".", " ").replace("(", " ").replace(",", " ").split()
            for word in words:
                if path.name.startswith("test_") or word not in seen:
                    seen.setdefault(word, where)
    return seen


def main() -> int:
    tests = used()
    sections: dict[str, list[tuple[str, str | None]]] = defaultdict(list)
    for name, module in homes().items():
        section = SECTIONS.get(module, REST)
        sections[section].append((name, tests.get(name, EVERY)))
        if section not in LATER:
            sections[section] += [(f"{name}.{member}", tests.get(member)) for member in members(module, name)]
    missing = []
    for section in sorted(sections, key=lambda title: int(title.split()[0])):
        print(f"\n## {section}\n\n| name | test |\n| --- | --- |")
        for name, where in sorted(sections[section]):
            print(f"| `{name}` | {where or '**none**'} |")
            missing += [] if where else [name]
    print(f"\n{sum(map(len, sections.values()))} names, {len(missing)} without a test: {', '.join(missing) or 'none'}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
