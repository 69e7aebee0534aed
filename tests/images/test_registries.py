"""The registries of the tests serve what the tests say they serve."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from pace import within
from registry import PASSWORD, USER, FakeRegistry, Registry, Start, needed


def inspect(reference: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = ["skopeo", "inspect", *options, f"docker://{reference}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=within(60), check=False)


@pytest.mark.parametrize("kind", ["plain", "basic", "token", "tls"])
def test_each_real_registry_serves_what_was_pushed(start_registry: Start, kind: str, busybox_archive: Path) -> None:
    registry: Registry = start_registry(kind)
    reference = registry.push(busybox_archive, "busybox:1")
    safe = ["--tls-verify=false"] if registry.ca is None else ["--cert-dir", str(registry.ca.parent / "trusted")]
    known = ["--creds", f"{USER}:{PASSWORD}"] if registry.credentials else []
    assert inspect(reference, *safe, *known).returncode == 0
    assert (inspect(reference, *safe).returncode == 0) == (not known)
    assert ("GET", "/v2/busybox/manifests/1", 200) in registry.requests()
    registry.forget()
    assert registry.requests() == []


def test_the_fake_registry_serves_archives_and_logs(fake_registry: FakeRegistry, busybox_archive: Path) -> None:
    needed("skopeo")
    reference = fake_registry.add(busybox_archive, "busybox", "1")
    assert inspect(reference, "--tls-verify=false", "--no-tags").returncode == 0
    assert [r.status for r in fake_registry.asked("/v2/busybox/manifests/1", "GET")] == [200]
