"""The backends that the conformance suite runs over, and the table of what is allowed to differ between them.

`harness` and `box` are a test's own: a fresh home and, in it, a fresh sandbox that the test may stop, replace or remove. `shared_box`
is one running sandbox for all tests that only use it: it is swept clean after each, and no test may end it. A boot costs
milliseconds on the container driver and many seconds on an emulated microVM, so what can share does.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from homes import new_home
from servers import Server, launch

# Everything that is not in this table must be the same. Key: what a test needs; value: why this backend lacks it.
DIFFERENCES: dict[str, dict[str, str]] = {
    "memory": {
        "programs": "runs built-in and scripted commands, not programs",
        "processes": "has no process that ends, is killed or outlives its creator",
        "isolation": "isolates nothing",
        "images": "has no image store",
        "init": "has no first process",
        "freezer": "has no processes to freeze",
        "jobs": "has no program that outlives its call",
        "modify": "has no changes of an existing sandbox",
        "mounts": "has one file tree for each sandbox: mounts are refused",
        "patches": "has no root file system to patch",
        "host_paths": "keeps nothing on this machine",
    },
    "container": {},
    "microvm": {},
    "cloud": {
        "config": "shows the service's view of a sandbox, not the creator's configuration",
        "host_paths": "never lets a caller name a path of the service's machine",
        "force": "has no kill and no drain: its wire has only stop",
        "freezer": "has no pause: its wire has none",
        "images": "has no image store for the caller",
        "init": "has no init: its wire has none",
        "isolation": "uses the isolation of the service; a required driver is refused",
        "metrics": "has no metrics",
        "modify": "has no modify",
        "ownership": "owns nothing: every sandbox outlives its creator",
        "patches": "has no patches: the caller writes files after create",
        "ping": "has no ping",
        "roots": "takes images by reference, never a directory of either machine",
        "touch": "has no touch",
        "values": "shows the names of variables and scripts, never what they hold",
    },
}

# The microVM boots only where /dev/kvm works: `scripts/run-microvm-tests` runs the same tests on it, in an emulated machine.
EVERYWHERE = "memory,container,cloud"

# Ends every process but the agent, and takes away what tests write.
SWEEP = "kill -9 -1; rm -rf /tmp/* /tmp/.[!.]*; true"


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
    # Of the cloud: `msb serve` over `home`, a process of its own.
    server: Server | None = None

    @classmethod
    def of(cls, kind: str, home: Path) -> Harness:
        if kind == "memory":
            from microsandbox.testing import MemoryBackend

            return cls(kind, MemoryBackend(), None)
        if kind == "cloud":
            from microsandbox import CloudBackend

            server = launch(home, home, "conformance")
            return cls(kind, CloudBackend(server.url, server.key), home, server=server)
        from microsandbox import LocalBackend

        return cls(kind, LocalBackend(home=home, isolation=kind), home)

    def has(self, what: str) -> bool:
        """Whether this backend has what a row of the table is about."""
        return what not in DIFFERENCES[self.kind]

    async def create(self, name: str = "box", **options: Any) -> Any:
        from microsandbox import Sandbox

        options.setdefault("image", "host")
        sandbox = await Sandbox.create(name, backend=self.backend, **options)
        self.created.append(name)
        return sandbox

    async def close(self) -> None:
        """Removes what the test left, by force: the leak check looks at what stays after that."""
        from microsandbox import LocalBackend, Sandbox, SandboxNotFoundError

        backend, names = self.backend, list(dict.fromkeys(self.created))
        if self.server is not None:
            # The service has no force; its home has, where names begin with the owner.
            assert self.server.end() == 0, self.server.notes.read_text()
            backend = LocalBackend(home=self.home)
            names = [handle.name for handle in (await Sandbox.list_with(limit=100, backend=backend)).sandboxes]
        for name in names:
            try:
                handle = await Sandbox.get(name, backend=backend)
                await handle.kill()
                await handle.remove()
            except SandboxNotFoundError:
                pass


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--backend", default=EVERYWHERE, help=f"comma-separated, of {', '.join(DIFFERENCES)}")
    parser.addoption(
        "--share", default="1/1", help="K/N: every N-th test beginning with the K-th, for N runs that divide the work"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(what): skipped on backends whose declared difference is `what`")
    share_of(config)
    if unknown := set(config.getoption("backend").split(",")) - set(DIFFERENCES):
        raise pytest.UsageError(f"no such backend: {', '.join(sorted(unknown))}")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    # Tests of the microVM alone belong to runs where it can boot.
    if collection_path.parts[-2:] == ("tests", "microvm") and "microvm" not in config.getoption("backend"):
        return True
    return None


def share_of(config: pytest.Config) -> tuple[int, int]:
    """`--share`, as numbers: which share of how many."""
    number, _, count = config.getoption("share").partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise pytest.UsageError(f"--share {config.getoption('share')}: K/N is meant, 1 <= K <= N")
    return int(number), int(count)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    number, count = share_of(config)
    mine = items[number - 1 :: count]
    if others := [item for place, item in enumerate(items) if place % count != number - 1]:
        config.hook.pytest_deselected(items=others)
        items[:] = mine


def pytest_report_header(config: pytest.Config) -> str:
    return f"backends: {config.getoption('backend')} (microvm: scripts/run-microvm-tests)"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    # Scope "session": pytest then runs all tests of one backend together.
    if "backend_name" in metafunc.fixturenames:
        kinds = metafunc.config.getoption("backend").split(",")
        metafunc.parametrize("backend_name", kinds, indirect=True, scope="session")


@pytest.fixture(scope="session")
def backend_name(request: pytest.FixtureRequest) -> str:
    """Which backend: one of `--backend`."""
    return str(request.param)


@pytest.fixture
def suits(request: pytest.FixtureRequest, backend_name: str) -> None:
    for marker in request.node.iter_markers("needs"):
        for what in marker.args:
            if reason := DIFFERENCES[backend_name].get(what):
                pytest.skip(f"the {backend_name} backend {reason}")


@pytest.fixture
async def harness(suits: None, backend_name: str, home: Path) -> AsyncIterator[Harness]:
    instance = Harness.of(backend_name, home)
    yield instance
    await instance.close()


@pytest.fixture
async def box(harness: Harness) -> Any:
    """A running sandbox named `box`, this test's own."""
    return await harness.create("box")


@dataclass
class Shared:
    """The sandbox that many tests use, made when the first one asks and again should a test have broken it."""

    harness: Harness
    sandbox: Any = None

    async def running(self) -> Any:
        from microsandbox import Sandbox, SandboxStatus

        if self.sandbox is not None:
            handle = await Sandbox.get("shared", backend=self.harness.backend)
            if handle.status is SandboxStatus.RUNNING:
                return self.sandbox
        self.sandbox = await self.harness.create("shared", memory=512, replace=self.sandbox is not None)
        return self.sandbox


@pytest.fixture(scope="session")
def shared(backend_name: str, prepared: Path) -> Iterator[Shared]:
    """Session-wide, so that it is there before the leak check of a test looks for the first time."""
    home = new_home(prepared)
    instance = Shared(Harness.of(backend_name, home))
    asyncio.run(instance.running())
    yield instance
    asyncio.run(instance.harness.close())
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
async def shared_harness(suits: None, backend_name: str, shared: Shared) -> AsyncIterator[Harness]:
    """The backend of `shared_box`."""
    if backend_name == "memory":
        # A new one costs nothing there, and there are no processes to sweep.
        fresh = Shared(Harness.of(backend_name, Path("/nonexistent")))
        await fresh.running()
        yield fresh.harness
        await fresh.harness.close()
        return
    sandbox = await shared.running()
    yield shared.harness
    await sandbox.shell(SWEEP)


@pytest.fixture
async def shared_box(shared_harness: Harness, shared: Shared) -> Any:
    """A running sandbox named `shared` that others use after this test: it may be used, not ended."""
    if shared_harness is shared.harness:
        return shared.sandbox
    from microsandbox import Sandbox

    return await (await Sandbox.get("shared", backend=shared_harness.backend)).connect()
