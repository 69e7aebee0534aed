"""How slow this machine is: one setting, `MSB_TEST_SLOWNESS` (default 1), that every deadline of the tests is multiplied with.

In an emulated machine everything takes many times longer; a deadline there says "this hangs", never "this is slow".
"""

from __future__ import annotations

import os

import pytest

SLOWNESS = float(os.environ.get("MSB_TEST_SLOWNESS", "1"))


def within(seconds: float) -> float:
    """A deadline, or another length of time that has to be long beside what happens in it."""
    return seconds * SLOWNESS


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # The deadline of each test, which pytest-timeout reads when it is configured.
    if config.getoption("timeout", None) is None and config.getini("timeout"):
        config.option.timeout = within(float(config.getini("timeout")))
