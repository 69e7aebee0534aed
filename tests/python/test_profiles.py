"""Profiles and the default backend as people meet them: `msb profile`, `msb context`, `set_default_backend`."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from clients import said_by
from pace import within
from servers import msb, on

KEY = "msb_live_a-key-that-must-not-be-seen"
DOCUMENT = {
    "unknown": {"kept": [1, 2]},
    "active_profile": "laptop",
    "profiles": {
        "laptop": {"backend": "local", "note": "kept too"},
        "work": {"backend": "cloud", "url": "https://cloud.example/", "api_key_ref": f"inline:{KEY}"},
    },
}


@pytest.fixture
def document(home: Path) -> Path:
    path = home / "config.json"
    path.write_text(json.dumps(DOCUMENT))
    return path


@pytest.mark.case(20, 22)
def test_profiles_are_listed_and_used_and_keys_never_shown(home: Path, document: Path) -> None:
    listed = msb("profile", "list", "--format", "json", **on(home))
    assert [(p["name"], p["active"], p["backend"]) for p in json.loads(listed.stdout)] == [
        ("laptop", True, "local"),
        ("work", False, "cloud"),
    ]
    shown = msb("profile", "show", "work", **on(home))
    assert "[redacted]" in shown.stdout and "https://cloud.example" in shown.stdout
    used = msb("profile", "use", "work", **on(home))
    assert used.returncode == 0, used.stderr
    where = msb("context", "--format", "json", **on(home))
    context = json.loads(where.stdout)
    assert (context["kind"], context["source"], context["profile"]) == ("cloud", "active_profile", "work")
    for done in (listed, shown, used, where):
        assert KEY not in done.stdout + done.stderr
    assert json.loads(document.read_text()) == {**DOCUMENT, "active_profile": "work"}
    assert stat.S_IMODE(document.stat().st_mode) == 0o600
    assert json.loads(msb("ctx", "list", "--format", "json", **on(home)).stdout)[1]["active"]
    assert msb("context", "reset", **on(home)).returncode == 0
    assert json.loads(document.read_text()) == {k: v for k, v in DOCUMENT.items() if k != "active_profile"}
    assert json.loads(msb("context", "--format", "json", **on(home)).stdout)["source"] == "default"
    assert msb("context", "use", "laptop", **on(home)).stdout == "laptop\n"
    assert json.loads(document.read_text()) == DOCUMENT


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.write_text('{"profiles": {'), "config.json"),
        (lambda path: path.write_text('{"profiles": {"a": {"backend": "local"}, "a": {"backend": "cloud"}}}'), "twice"),
        (lambda path: (path.unlink(missing_ok=True), path.mkdir()), "config.json"),
        (lambda path: path.write_text('{"active_profile": "gone"}'), "gone"),
    ],
    ids=["half-written", "two of one name", "a directory", "an absent profile"],
)
def test_a_broken_document_fails_closed_and_says_where(home: Path, spoil, said: str) -> None:  # type: ignore[no-untyped-def]
    spoil(home / "config.json")
    done = msb("ls", **on(home))
    assert done.returncode != 0
    assert said in done.stderr and not (home / "db").exists(), done.stderr


DEFAULTS = f"""
import microsandbox as m
for bad in (lambda: m.set_default_backend("cloud", "https://x.example", "{KEY}"), lambda: m.set_default_backend("cloud", "u")):
    try:
        bad()
    except TypeError:
        pass
    else:
        raise SystemExit("keywords only")
for bad in (lambda: m.set_default_backend("mars"), lambda: m.set_default_backend("cloud"), lambda: m.set_default_backend("cloud", url="https://x.example"), lambda: m.set_default_backend("local", url="x")):
    try:
        bad()
    except ValueError as error:
        print(type(error).__name__)
m.set_default_backend(" Cloud ", url="https://x.example", api_key="{KEY}")
print(m.default_backend_kind().value)
with m.backend_scope("local"):
    print(m.default_backend_kind().value)
print(m.default_backend_kind().value, "{KEY}" in repr(m.default_backend_info()))
m.set_default_backend("local")
print(m.default_backend_kind().value)
"""


@pytest.mark.case(98)
def test_the_default_is_set_with_keywords(home: Path) -> None:
    lines = said_by("-c", DEFAULTS, **on(home)).splitlines()
    assert lines[4:] == ["cloud", "local", "cloud False", "local"]
    assert all("Error" in line for line in lines[:4])


@pytest.mark.case(30, 40, 41)
def test_two_homes_share_nothing(tmp_path: Path) -> None:
    code = """
import asyncio, os, sys
from microsandbox import LocalBackend, Volume, backend_scope
async def main():
    a, b = (LocalBackend(home=home, isolation="container") for home in sys.argv[1:])
    assert not any(os.path.exists(f"{home}/db") for home in sys.argv[1:])
    with backend_scope(a):
        volume = await Volume.create("data", backend=b)
        await volume.fs.write("f", b"of b")
        assert await Volume.list() == []
        await Volume.create("data")
        assert await (await Volume.get("data")).fs.list("") == []
        assert await volume.fs.read("f") == b"of b"
asyncio.run(main())
"""
    homes = [tmp_path / "a", tmp_path / "b"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, homes)], capture_output=True, text=True, timeout=within(60)
    )
    assert done.returncode == 0, done.stderr
    assert (homes[1] / "volumes/data/f").read_bytes() == b"of b"
    assert os.listdir(homes[0] / "volumes/data") == []


SERVICE = """
set -e
mkdir -p "$HOME" "$XDG_RUNTIME_DIR"; chmod 700 "$XDG_RUNTIME_DIR"
echo -n master | gnome-keyring-daemon --unlock --components=secrets >/dev/null
printf %s "$SECRET" | secret-tool store --label=microsandbox service microsandbox.test username work
exec "$@"
"""
ASK = """
from microsandbox import CloudBackend
for profile in ("work", "absent"):
    try:
        print(CloudBackend.from_profile(profile))
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_a_key_of_the_secret_service(home: Path, tmp_path: Path) -> None:
    """A real one: gnome-keyring on a session bus of its own, filled by secret-tool."""
    cloud = {"backend": "cloud", "url": "https://cloud.example"}
    profiles = {name: {**cloud, "api_key_ref": f"keyring:microsandbox.test:{name}"} for name in ("work", "absent")}
    (home / "config.json").write_text(json.dumps({"profiles": profiles}))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DBUS_", "XDG_"))}
    environment |= {**on(home), "SECRET": KEY, "HOME": str(tmp_path / "h"), "XDG_RUNTIME_DIR": str(tmp_path / "run")}

    def ask(*wrapped: str) -> list[str]:
        command = [*wrapped, sys.executable, "-c", ASK]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=within(60))
        assert done.returncode == 0, done.stderr
        assert KEY not in done.stdout + done.stderr
        return done.stdout.splitlines()

    found, absent = ask("dbus-run-session", "--", "bash", "-c", SERVICE, "service")
    assert found.startswith("CloudBackend(") and "cloud.example" in found
    assert absent.startswith("InvalidConfigError") and "is not in the keyring" in absent and "secret-tool" in absent
    for line in ask():
        assert line.startswith("InvalidConfigError") and "use env:NAME" in line


UNMEASURED = """
import asyncio, os, warnings
warnings.simplefilter("ignore")
from microsandbox import LocalBackend, MetricsDisabledError, Sandbox
async def main():
    backend = LocalBackend(isolation="container")
    box = await Sandbox.create("box", image="host", backend=backend)
    try:
        await box.metrics()
    except MetricsDisabledError as error:
        print("disabled", error.name)
    finally:
        await box.destroy(force=True)
asyncio.run(main())
"""


@pytest.mark.case(60)
def test_disabled_sampling_is_reported(home: Path) -> None:
    (home / "config.json").write_text(json.dumps({"sandbox_defaults": {"metrics_sample_interval_ms": None}}))
    assert said_by("-c", UNMEASURED, **on(home)).splitlines() == ["disabled box"]
