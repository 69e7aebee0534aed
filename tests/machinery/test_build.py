"""What the build takes for granted: the wheel of the tests and the Rust tests share their crates; no wheel for users has failpoints."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from homes import REPOSITORY

needs_cargo = pytest.mark.skipif(not shutil.which("cargo"), reason="cargo is not installed")


def features(edges: str, *flags: str) -> dict[str, str]:
    """Each crate that a build uses, with the features that it has there."""
    command = [
        "cargo",
        "tree",
        "--locked",
        "--prefix",
        "none",
        "--no-dedupe",
        "--edges",
        edges,
        "-f",
        "{p}|{f}",
        *flags,
    ]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(sorted({line.partition("|")[::2] for line in done.stdout.splitlines() if line}))


@needs_cargo
def test_wheel_and_rust_tests_share_their_crates() -> None:
    """A feature that only one of the two wants has the crate, and all that stands on it, compiled twice."""
    script = '. scripts/tested-profile.sh; part_flags library; printf "%s\\n" "${flags[@]}"'
    listed = subprocess.run(["bash", "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    wheel_features = "pyo3/abi3-py310,tested"
    if "\nfailpoints = " in (REPOSITORY / "rust/bindings/Cargo.toml").read_text():
        wheel_features += ",failpoints"
    wheel = features("normal", "--package", "microsandbox-bindings", "--features", wheel_features)
    tests = features("normal,dev", *listed.stdout.split())
    shared = wheel.keys() & tests.keys()
    assert len(shared) > 100
    different = {crate: (wheel[crate], tests[crate]) for crate in shared if wheel[crate] != tests[crate]}
    assert different == {}


@pytest.mark.parametrize(("content", "status"), [(b"\x7fELF MSB_FAILPOINT", 1), (b"\x7fELF", 0)])
def test_a_wheel_with_failpoints_is_refused(tmp_path: Path, content: bytes, status: int) -> None:
    wheel = tmp_path / "microsandbox.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("microsandbox/_microsandbox.abi3.so", content)
    command = [sys.executable, REPOSITORY / "scripts" / "check_wheel.py", wheel]
    assert subprocess.run(command, capture_output=True).returncode == status
