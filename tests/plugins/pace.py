"""How slow this machine is, and how long the tests may take: the settings of a run.

`MSB_TEST_SLOWNESS` (default 1) multiplies every deadline of the tests. In an emulated machine everything takes many times longer; a
deadline there says "this hangs", never "this is slow".

`MSB_TEST_LONG`, set by `make test-long`, selects the long form of the tests that are marked `soak`; `make test` runs their short form.
"""

from __future__ import annotations

import os

import pytest

SLOWNESS = float(os.environ.get("MSB_TEST_SLOWNESS", "1"))
LONG = bool(os.environ.get("MSB_TEST_LONG"))


def within(seconds: float) -> float:
    """A deadline, or another length of time that has to be long beside what happens in it."""
    return seconds * SLOWNESS


def amount(short: int, long: int) -> int:
    """How often, or for how many seconds, a test that is marked `soak` repeats what it does."""
    return long if LONG else short


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # The deadline of each test, which pytest-timeout reads when it is configured.
    if config.getoption("timeout", None) is None and config.getini("timeout"):
        config.option.timeout = within(float(config.getini("timeout")))
