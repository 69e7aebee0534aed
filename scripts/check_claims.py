"""Every claim names its test or bench, every one that is named exists, and no document says what cannot be shown.

It checks names only: that a test does what its row says, and that it fails without the protection, is for a reader to
see; the table of SECURITY.md says for which tests that was tried.

Reads docs/claims.md (of which the table in README.md is a part), docs/hazards.md, docs/backend-cases.md, the references
of the other documents, the words of all of them, and the marks of the tests. Prints what is wrong and exits with 1, or
says how much it checked.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from marks import Test, tests

ROOT = Path(__file__).resolve().parent.parent
README = "README.md"
CLAIMS = "docs/claims.md"
HAZARDS = "docs/hazards.md"
BACKEND_CASES = "docs/backend-cases.md"
FINDINGS = "docs/findings.md"
DOCUMENTS = (
    README,
    "DESIGN.md",
    "SECURITY.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "benches/README.md",
    CLAIMS,
    HAZARDS,
    BACKEND_CASES,
    FINDINGS,
)
REFERENCE = re.compile(r"`((?:tests|benches|rust|fuzz)/[\w./-]+\.(?:py|rs))::([\w:]+)`")
# Of section 11 of the specification of the backends.
CASES = 101
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)\)")
# A level of protection is what the list of mechanisms says, not an adjective.
FORBIDDEN = re.compile(r"\b(secure|securely|unhackable|bulletproof|military-grade|blazing(?:ly)?)\b", re.IGNORECASE)
# What a row of the hazards says in place of a test, where what it is about is not built or not tested.
PENDING = "pending"

Marks = dict[tuple[str, str], Test]


def defined(path: Path, name: str) -> bool:
    """Whether `name` is a function of that file (the last part of a Rust path)."""
    if not path.exists():
        return False
    last = name.split("::")[-1]
    return (
        re.search(rf"^\s*(?:pub )?(?:async )?(?:def|fn) {re.escape(last)}\b", path.read_text(), re.MULTILINE)
        is not None
    )


def rows(table: str) -> list[list[str]]:
    """The cells of every row of every table, without heads and rules."""
    lines = table.splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for number, line in enumerate(lines)
        if line.startswith("|")
        and not line.startswith("|--")
        and not lines[min(number + 1, len(lines) - 1)].startswith("|--")
    ]


def claims(text: str) -> Iterable[str]:
    """What is wrong with the table of claims."""
    if not rows(text):
        yield "holds no claim"
    for claim, holder, *_ in rows(text):
        if not REFERENCE.search(holder):
            yield f"nothing holds the claim {claim!r}"


def readme(text: str, table: str) -> Iterable[str]:
    """What is wrong with the claims that README repeats: each is one of the table."""
    section = text.partition("## What is claimed")[2].partition("\n## ")[0]
    held = set(REFERENCE.findall(table))
    for claim, holder, *_ in rows(section):
        found = REFERENCE.findall(holder)
        if not found or not set(found) <= held:
            yield f"the claim {claim!r} is not in {CLAIMS} with the same test"


def hazards(text: str, marks: Marks) -> Iterable[str]:
    """What is wrong with the catalogue: a row for each code, with a test that carries the code, and no other marks."""
    seen: set[str] = set()
    for code, *_, holder in rows(text):
        if code in seen:
            yield f"{code} has two rows"
        seen.add(code)
        references = REFERENCE.findall(holder)
        if not references and not holder.startswith(PENDING):
            yield f"{code} names no test and is not pending"
        for file, name in references:
            test = marks.get((file, name.split("::")[-1]))
            if test is not None and code not in test.hazards:
                yield f"{code} names {file}::{name}, which does not carry that mark"
    for test in marks.values():
        for code in test.hazards:
            if code not in seen:
                yield f"{test.path}::{test.name} is marked {code}, which has no row"


def cases(text: str, marks: Marks) -> Iterable[str]:
    """What is wrong with the table of cases: a line each, in order, with a test; each marked test is in its line."""
    lines = re.findall(r"^\| (\d+) \|.*?\| (.*?) \|", text, re.MULTILINE)
    held = {int(number): REFERENCE.findall(holder) for number, holder in lines}
    for number, found in held.items():
        if not found:
            yield f"case {number} names no test"
    if [int(number) for number, _ in lines] != list(range(1, CASES + 1)):
        yield f"not one line for each of the {CASES} cases, in order"
    for test in marks.values():
        for number in test.cases:
            if (test.path, test.name) not in held.get(number, []):
                yield f"case {number} does not name {test.path}::{test.name}, which is marked with it"


def references(name: str, text: str) -> tuple[int, list[str]]:
    """How many references and links a document has, and what is wrong with them or with its words."""
    wrong = []
    found = REFERENCE.findall(text)
    for file, function in found:
        if not defined(ROOT / file, function):
            wrong.append(f"{file}::{function} does not exist")
    links = LINK.findall(text)
    wrong += [f"broken link {link}" for link in links if not ((ROOT / name).parent / link).exists()]
    for number, line in enumerate(text.splitlines(), 1):
        wrong += [f"line {number}: the word {word!r}" for word in FORBIDDEN.findall(line)]
    return len(found) + len(links), wrong


def main() -> int:
    wrong: list[str] = []
    checked = 0
    texts = {name: (ROOT / name).read_text() for name in DOCUMENTS if (ROOT / name).exists()}
    wrong += [f"{name}: missing" for name in DOCUMENTS if name not in texts]
    marks = {(test.path, test.name): test for test in tests(ROOT)}
    for name, text in texts.items():
        count, complaints = references(name, text)
        checked += count
        wrong += [f"{name}: {complaint}" for complaint in complaints]
    if not wrong or not any(line.endswith(": missing") for line in wrong):
        wrong += [f"{CLAIMS}: {line}" for line in claims(texts[CLAIMS])]
        wrong += [f"{README}: {line}" for line in readme(texts[README], texts[CLAIMS])]
        wrong += [f"{HAZARDS}: {line}" for line in hazards(texts[HAZARDS], marks)]
        wrong += [f"{BACKEND_CASES}: {line}" for line in cases(texts[BACKEND_CASES], marks)]
    for line in wrong:
        print(line, file=sys.stderr)
    print(f"claims: {checked} references and {len(marks)} tests checked, {len(wrong)} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
