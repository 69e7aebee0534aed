"""Which isolation a sandbox gets, and what is said when it cannot be had. What boots in a machine is in tests/conformance."""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import sys
import warnings
from pathlib import Path

import microsandbox
import pytest
from microsandbox import (
    InstallOptions,
    InvalidConfigError,
    Isolation,
    IsolationUnavailableError,
    MechanismState,
    Sandbox,
    UnsupportedError,
    doctor,
    install_runtime,
    resolve_runtime,
    set_libkrunfw_path,
)

KVM_GET_API_VERSION = 0xAE00


def kvm_answers() -> bool:
    try:
        with open("/dev/kvm", "rb+", buffering=0) as device:
            return fcntl.ioctl(device, KVM_GET_API_VERSION) == 12
    except OSError:
        return False


needs_kvm = pytest.mark.skipif(not kvm_answers(), reason="/dev/kvm does not answer here: that is reported first")


@pytest.fixture(autouse=True)
def ambient(home: Path) -> None:
    """Calls that name no backend go to this test's own home: the default is resolved once per process."""
    microsandbox.set_default_backend(microsandbox.LocalBackend(home=home))


async def refused(home: Path, **options: object) -> IsolationUnavailableError:
    """The refusal of a demand for a microVM, of which nothing is left."""
    with pytest.raises(IsolationUnavailableError) as caught:
        await Sandbox.create("box", image="host", isolation=Isolation.MICROVM, **options)  # type: ignore[arg-type]
    assert (await Sandbox.list()).sandboxes == []
    assert not (home / "sandboxes" / "box").exists()
    error = caught.value
    assert error.demanded == "microvm"
    assert error.reason and error.hint, "each refusal has a reason and a remedy"
    return error


@needs_kvm
async def test_a_named_library_that_is_missing_is_reported(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSB_LIBKRUNFW_PATH", str(home / "none.so"))
    error = await refused(home)
    assert "MSB_LIBKRUNFW_PATH" in error.reason and "does not exist" in error.reason


@needs_kvm
@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"text", "not an ELF file"), (b"", "not an ELF file"), (b"\x7fELF\x02\x01\x01", "truncated")],
    ids=["text", "empty", "truncated"],
)
async def test_a_named_library_that_is_unusable_is_reported(
    home: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, expected: str
) -> None:
    library = home / "libkrunfw.so.5"
    library.write_bytes(content)
    monkeypatch.setenv("MSB_LIBKRUNFW_PATH", str(library))
    error = await refused(home)
    assert str(library) in error.reason and expected in error.reason


@pytest.mark.parametrize(
    ("options", "expected"), [({"memory": 63}, "64 to "), ({"cpus": 255}, "the processors of this machine")]
)
async def test_sizes_no_machine_has_are_refused_with_the_range(
    home: Path, options: dict[str, int], expected: str
) -> None:
    if options.get("cpus", 0) <= 2 * (os.cpu_count() or 1) and "cpus" in options:
        pytest.skip("this machine has 128 processors or more")
    with pytest.raises(InvalidConfigError, match=expected):
        await Sandbox.create("box", image="host", isolation=Isolation.MICROVM, **options)  # type: ignore[arg-type]
    assert not (home / "sandboxes" / "box").exists()


async def test_auto_with_an_unusable_library_is_a_container(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSB_LIBKRUNFW_PATH", str(home / "none.so"))
    monkeypatch.setattr("microsandbox._runtime.noticed", [])
    monkeypatch.setattr("microsandbox._isolation.noticed", [])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", microsandbox.IsolationWarning)
        box = await Sandbox.create("box", image="host")
    assert box.isolation is Isolation.CONTAINER
    shown = [str(warning.message) for warning in caught if warning.category is microsandbox.IsolationWarning]
    report = await doctor()
    assert len(shown) == 1 and report.reason and report.hint
    assert report.reason in shown[0] and report.hint in shown[0]
    await box.destroy(force=True)


async def test_the_doctor_names_each_place_of_the_library(home: Path) -> None:
    report = await doctor(recheck=True)
    rungs = [rung.rung for rung in report.libkrunfw]
    assert rungs[:3] == ["MSB_LIBKRUNFW_PATH", "set_libkrunfw_path", "paths.libkrunfw"]
    assert rungs[-1] == "home" and "system" in rungs
    assert report.libkrunfw[-1].path == home / "lib" / "libkrunfw.so.5"
    checks = {check.name: check for check in report.checks}
    assert {"kvm", "libkrunfw", "microvm"} <= set(checks)
    assert (report.isolation is Isolation.MICROVM) == (checks["microvm"].state is MechanismState.ON)
    assert (report.reason is None) == (report.isolation is Isolation.MICROVM)
    assert (checks["kvm"].state is MechanismState.ON) <= kvm_answers()


def test_a_path_is_kept_for_this_process(home: Path) -> None:
    code = f"""
import asyncio, microsandbox
microsandbox.set_libkrunfw_path("first")
microsandbox.set_libkrunfw_path({str(home / "second")!r})
rung = asyncio.run(microsandbox.doctor()).libkrunfw[1]
assert str(rung.path) == {str(home / "second")!r} and rung.found == "unusable", rung
assert microsandbox.resolve_runtime().libkrunfw_path is None
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_path_is_a_text_that_is_not_empty() -> None:
    with pytest.raises(TypeError):
        set_libkrunfw_path(Path("/x"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="empty"):
        set_libkrunfw_path("")


LIBRARY = """
__attribute__((aligned(4096))) char KERNEL_BUNDLE[4097] = {1};
int krunfw_get_version(void) { return 5; }
char *krunfw_get_kernel(unsigned long long *load, unsigned long long *entry, unsigned long *size)
{ *load = *entry = 0x1000000; *size = 4096; return KERNEL_BUNDLE; }
"""


async def test_a_library_installed_from_a_file_is_found(home: Path) -> None:
    source, library = home / "lib.c", home / "lib.so"
    source.write_text(LIBRARY)
    command = ["cc", "-shared", "-nostdlib", "-fPIC", "-w", "-Wl,-soname,libkrunfw.so.5", "-o", library, source]
    subprocess.run(command, check=True, timeout=60)
    resolved = await install_runtime(options=InstallOptions(source="archive", source_path=library))
    installed = home / "lib" / "libkrunfw.so.5"
    assert resolved == resolve_runtime()
    assert resolved.libkrunfw_path == installed
    assert installed.read_bytes() == library.read_bytes()
    with pytest.raises(InvalidConfigError, match="neither a shared library nor a wheel"):
        await install_runtime(options=InstallOptions(source="archive", source_path=source))
    with pytest.raises(UnsupportedError):
        await install_runtime(options=InstallOptions(source="directory", source_path=home))


@needs_kvm
async def test_a_canary_that_fails_leaves_nothing_and_is_over_in_time(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library without a kernel in it: whatever the machine does with it, it ends."""
    await test_a_library_installed_from_a_file_is_found(home)
    monkeypatch.setenv("MSB_CANARY_DEADLINE", "2")
    report = await asyncio.wait_for(doctor(recheck=True), 30)
    assert report.isolation is Isolation.CONTAINER
    assert [path.name for path in (home / "run").glob("canary-*")] == []


async def test_the_time_of_a_boot_is_reported_by_step(home: Path) -> None:
    async with await Sandbox.create("box", image="host", isolation=Isolation.CONTAINER) as box:
        steps = box.boot_timings
        assert {step.side for step in steps} == {"sdk", "runtime"}
        assert {"spawn", "reported"} <= {step.step for step in steps}
        # Two processes, two clocks: each side's own steps are in order.
        for side in ("sdk", "runtime"):
            ends = [step.at_us for step in steps if step.side == side]
            assert ends == sorted(ends) and ends[-1] > 0
        assert (await (await Sandbox.get("box")).connect()).boot_timings == ()
