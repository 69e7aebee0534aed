"""Real sandboxes for the tests that are about one driver: a local backend with its own home."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def isolation() -> str:
    """Which driver `local`, `make` and `client` use; modules about another one say so in a fixture of this name."""
    return "container"


@pytest.fixture
def local(home: Path, isolation: str) -> Any:
    from microsandbox import LocalBackend

    return LocalBackend(home=home, isolation=isolation)


@pytest.fixture
async def make(local: Any) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    """Creates sandboxes and removes them, by force, when the test is over."""
    from microsandbox import Sandbox, SandboxNotFoundError

    names: list[str] = []

    async def create(name: str = "box", **options: Any) -> Any:
        options.setdefault("image", "host")
        names.append(name)
        return await Sandbox.create(name, backend=local, **options)

    yield create
    for name in dict.fromkeys(names):
        try:
            handle = await Sandbox.get(name, backend=local)
            await handle.kill()
            await handle.remove()
        except SandboxNotFoundError:
            pass


def identity(home: Path, name: str = "box") -> dict[str, Any]:
    """`runtime/identity.json` of a running sandbox: who runs it, as the host sees it."""
    # A sandbox that a server made is stored with its owner before its name.
    (path,) = [
        path
        for pattern in (name, f"*-{name}")
        for path in (home / "sandboxes").glob(f"{pattern}/runtime/identity.json")
    ]
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def init_pid(home: Path, name: str = "box") -> int:
    return int(identity(home, name)["init"]["pid"])


def runtime_pid(home: Path, name: str = "box") -> int:
    return int(identity(home, name)["runtime"]["pid"])
