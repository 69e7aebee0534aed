"""What a failed test's sandboxes left to read, in its report: the homes are gone when a person looks."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest
from homes import LIVE

FILES = ("logs/kernel.log", "logs/runtime.log", "logs/boot-error.json", "runtime/exit.json")
LAST = 4000


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for home in sorted(LIVE):
            for path in sorted(path for name in FILES for path in (home / "sandboxes").glob(f"*/{name}")):
                if text := tail(path):
                    report.sections.append((str(path.relative_to(home)), text))
    return report


def tail(path: Path) -> str:
    try:
        return path.read_bytes()[-LAST:].decode(errors="replace")
    except OSError as error:
        return str(error)
