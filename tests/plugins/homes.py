"""State directories of tests: each its own, short (socket paths are), and empty of sandboxes at the end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from pace import SLOWNESS, within

REPOSITORY = Path(__file__).resolve().parents[2]
ARCHIVE = REPOSITORY / ".cache" / "debian-python.oci.tar"
SYSTEMD_ARCHIVE = REPOSITORY / ".cache" / "debian-systemd.oci.tar"


def pytest_configure(config: pytest.Config) -> None:
    # Whatever the caller's shell says must not reach the tests, but for the guest kernel of a run that boots one.
    kept = {"MSB_LIBKRUNFW_PATH"} if "microvm" in str(config.getoption("backend", "")) else set()
    for name in [name for name in os.environ if name.startswith("MSB_") and name not in kept]:
        if not name.startswith("MSB_TEST_"):
            del os.environ[name]


def query(home: Path, *statements: str) -> list[list[object]]:
    """Runs SQL on the product's database in a process of its own: a second SQLite library in this process would drop the
    locks that the product holds. The rows of each statement."""
    code = (
        "import json, sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1])\n"
        "rows = [connection.execute(s).fetchall() for s in json.loads(sys.argv[2])]\n"
        "connection.commit()\nconnection.close()\nprint(json.dumps(rows))\n"
    )
    command = [sys.executable, "-c", code, str(home / "db" / "msb.db"), json.dumps(statements)]
    rows: list[list[object]] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return rows


WARM = """
import asyncio, sys, warnings
warnings.simplefilter("ignore")
from microsandbox import LocalBackend, Sandbox
async def main():
    backend = LocalBackend(home=sys.argv[1], isolation="container")
    await (await Sandbox.create("warm", image="host", backend=backend)).destroy(force=True)
asyncio.run(main())
"""


def place() -> str:
    """Where homes are: `TMPDIR`, which in an emulated machine is the one real disk, unless it would make socket paths too long."""
    wanted = os.environ.get("TMPDIR", "/tmp")
    return wanted if len(wanted) <= len("/var/tmp") else "/tmp"


# The homes that tests have now.
LIVE: set[Path] = set()

# Before the leak check points TMPDIR at a directory of its own.
PLACE = place()


def write_config(home: Path, **sections: dict[str, object]) -> None:
    """A configuration, in which a slow machine has the time to boot that it needs."""
    if SLOWNESS != 1:
        sections["boot"] = {"ready_timeout_secs": within(60)}
    (home / "config.json").write_text(json.dumps(sections))


def new_home(prepared: Path | None = None) -> Path:
    """An empty home, but for a configuration that shares the host layers of `prepared`."""
    directory = Path(tempfile.mkdtemp(prefix="h", dir=PLACE))
    LIVE.difference_update([home for home in LIVE if not home.exists()])
    LIVE.add(directory)
    if prepared is not None:
        # The layers are owned by mapped ids, so the mapping has to be the same one.
        if (prepared / "idmap.json").exists():
            shutil.copy(prepared / "idmap.json", directory)
        write_config(directory, paths={"cache": str(prepared / "cache")})
    return directory


@pytest.fixture(scope="session")
def prepared() -> Iterator[Path]:
    """A home in which the layers of `image="host"` are made already; that takes most of a second, once per home."""
    directory = Path(tempfile.mkdtemp(prefix="p", dir=PLACE))
    LIVE.add(directory)
    write_config(directory)
    subprocess.run([sys.executable, "-c", WARM, directory], check=True)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, prepared: Path) -> Iterator[Path]:
    """A product home of its own, empty but for a configuration that shares cached host layers (the marker `fresh_home` does without);
    also in `MSB_HOME`, for the command line and for child processes."""
    directory = new_home(None if request.node.get_closest_marker("fresh_home") else prepared)
    monkeypatch.setenv("MSB_HOME", str(directory))
    monkeypatch.setenv("MSB_CONFIG_PATH", str(directory / "config.json"))
    yield directory
    left = sorted(p.name for p in (directory / "sandboxes").glob("*") if (p / "runtime").exists())
    shutil.rmtree(directory, ignore_errors=True)
    if request.node.get_closest_marker("leaves_records"):
        left = []
    assert not left, f"sandbox directories left in the home: {left}"
    assert not directory.exists(), f"cannot remove the home: {directory}"


@pytest.fixture(scope="session")
def debian_archive() -> Path:
    """The OCI archive of Debian with Python that scripts/build-debian-archive made."""
    if not ARCHIVE.exists():
        pytest.skip("no .cache/debian-python.oci.tar (scripts/build-debian-archive needs root once)")
    return ARCHIVE


@pytest.fixture(scope="session")
def systemd_archive() -> Path:
    """The OCI archive of Debian with systemd that scripts/build-debian-archive made."""
    if not SYSTEMD_ARCHIVE.exists():
        pytest.skip("no .cache/debian-systemd.oci.tar (scripts/build-debian-archive needs root once)")
    return SYSTEMD_ARCHIVE
