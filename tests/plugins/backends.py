"""The backends that the conformance suite runs over, and the table of what is allowed to differ between them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

# Everything that is not in this table must be the same. Key: what a test needs; value: why this backend lacks it.
DIFFERENCES: dict[str, dict[str, str]] = {
    "memory": {
        "programs": "runs built-in and scripted commands, not programs",
        "processes": "has no process that could end, be killed or outlive its creator",
        "isolation": "isolates nothing",
        "images": "has no image store",
    },
    "container": {},
}


def speaker(stdout: str = "", stderr: str = "", code: int = 0) -> tuple[str, list[str]]:
    """A program that every backend has and that says what is wanted: the arguments of `exec`."""
    return "sh", ["-c", f"printf %s '{stdout}'; printf %s '{stderr}' >&2; exit {code}"]


@dataclass
class Harness:
    """One backend under test."""

    kind: str
    backend: Any
    home: Path | None
    created: list[str] = field(default_factory=list)

    async def create(self, name: str = "box", **options: Any) -> Any:
        from microsandbox import Sandbox

        options.setdefault("image", "host")
        sandbox = await Sandbox.create(name, backend=self.backend, **options)
        self.created.append(name)
        return sandbox

    async def close(self) -> None:
        """Removes what the test left, by force: the leak check looks at what stays after that."""
        from microsandbox import Sandbox, SandboxNotFoundError

        for name in dict.fromkeys(self.created):
            try:
                handle = await Sandbox.get(name, backend=self.backend)
                await handle.kill()
                await handle.remove()
            except SandboxNotFoundError:
                pass


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(what): skipped on backends whose declared difference is `what`")


@pytest.fixture(params=["memory", "container"])
async def harness(request: pytest.FixtureRequest, home: Path) -> AsyncIterator[Harness]:
    kind: str = request.param
    for marker in request.node.iter_markers("needs"):
        for what in marker.args:
            if reason := DIFFERENCES[kind].get(what):
                pytest.skip(f"the {kind} backend {reason}")
    if kind == "memory":
        from microsandbox.testing import MemoryBackend

        instance = Harness(kind, MemoryBackend(), None)
    else:
        from microsandbox import LocalBackend

        instance = Harness(kind, LocalBackend(home=home, isolation="container"), home)
    yield instance
    await instance.close()


@pytest.fixture
async def box(harness: Harness) -> Any:
    """A running sandbox named `box`."""
    return await harness.create("box")
