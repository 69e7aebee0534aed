"""Every claim names its test or bench, every one that is named exists, and no document says what cannot be shown.

Reads the table "What is claimed, and what holds it" of README.md, the references of the other documents, and the words
of all of them. Prints what is wrong and ends with 1, or says how much it checked.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TABLE = "docs/backend-cases.md"
DOCUMENTS = (
    "README.md",
    "DESIGN.md",
    "SECURITY.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "benches/README.md",
    TABLE,
)
REFERENCE = re.compile(r"`((?:tests|benches|rust|fuzz)/[\w./-]+\.(?:py|rs))::([\w:]+)`")
# Of section 11 of the specification.
CASES = 101
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)\)")
# A level of protection is what the list of mechanisms says, not an adjective.
FORBIDDEN = re.compile(r"\b(secure|securely|unhackable|bulletproof|military-grade|blazing(?:ly)?)\b", re.IGNORECASE)


def defined(path: Path, name: str) -> bool:
    """Whether `name` is a function of that file (the last part of a Rust path)."""
    if not path.exists():
        return False
    last = name.split("::")[-1]
    return (
        re.search(rf"^\s*(?:pub )?(?:async )?(?:def|fn) {re.escape(last)}\b", path.read_text(), re.MULTILINE)
        is not None
    )


def claims(text: str) -> list[tuple[str, str]]:
    """The rows of the table of claims."""
    section = text.split("## What is claimed", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [(row[0].strip(), row[1].strip()) for row in rows[2:]]


def cases(text: str) -> list[str]:
    """What is wrong with the table of cases: a line for each, in order, with a test."""
    rows = re.findall(r"^\| (\d+) \|.*?\| (.*?) \|", text, re.MULTILINE)
    wrong = [f"case {number} names no test" for number, held in rows if not REFERENCE.search(held)]
    if [int(number) for number, _ in rows] != list(range(1, CASES + 1)):
        wrong.append(f"not one line for each of the {CASES} cases, in order")
    return wrong


def main() -> int:
    wrong: list[str] = []
    checked = 0
    for name in DOCUMENTS:
        path = ROOT / name
        if not path.exists():
            wrong.append(f"{name}: missing")
            continue
        text = path.read_text()
        if name == TABLE:
            wrong += [f"{name}: {what}" for what in cases(text)]
        for file, function in REFERENCE.findall(text):
            checked += 1
            if not defined(ROOT / file, function):
                wrong.append(f"{name}: {file}::{function} does not exist")
        for link in LINK.findall(text):
            checked += 1
            if not (path.parent / link).exists():
                wrong.append(f"{name}: broken link {link}")
        for number, line in enumerate(text.splitlines(), 1):
            for word in FORBIDDEN.findall(line):
                wrong.append(f"{name}:{number}: the word {word!r}")
    for claim, holder in claims((ROOT / "README.md").read_text()):
        checked += 1
        if not REFERENCE.search(holder):
            wrong.append(f"README.md: nothing holds the claim {claim!r}")
    for line in wrong:
        print(line, file=sys.stderr)
    print(f"claims: {checked} references checked, {len(wrong)} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
