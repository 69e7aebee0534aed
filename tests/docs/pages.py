"""Runs the programs of one page, as a notebook would: `python pages.py PAGE`.

Blocks of Python share their names and may await. A block of text directly after one is its expected output. Exits with 1
and prints the first difference.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import io
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from microsandbox import IsolationWarning

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def programs(text: str) -> Iterator[tuple[str, str | None]]:
    """Blocks of Python, each with its expected output if a block of text follows directly."""
    blocks = list(BLOCK.finditer(text))
    for index, block in enumerate(blocks):
        if block.group(1) != "python":
            continue
        following = blocks[index + 1] if index + 1 < len(blocks) else None
        is_next = following is not None and not text[block.end() : following.start()].strip()
        said = following.group(2) if following is not None and is_next and following.group(1) == "text" else None
        yield block.group(2), said


async def run(source: str, name: str, names: dict[str, Any]) -> None:
    code = compile(source, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, names)
    if result is not None:
        await result


async def first_difference(page: Path) -> str | None:
    """The first difference."""
    names: dict[str, Any] = {"__name__": "__page__"}
    for number, (source, said) in enumerate(programs(page.read_text())):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            await run(source, f"{page.name}[{number}]", names)
        if said is not None and printed.getvalue().rstrip("\n") != said.rstrip("\n"):
            return f"block {number} printed\n{printed.getvalue()}and the page says\n{said}"
    return None


if __name__ == "__main__":
    # Issued once per process on a machine without a working KVM; no page is about it.
    warnings.simplefilter("ignore", IsolationWarning)
    wrong = asyncio.run(first_difference(Path(sys.argv[1])))
    sys.exit(wrong)
