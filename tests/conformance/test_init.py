"""A program of the image's as the first process (surface section 16)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from backends import Harness
from microsandbox import BootStartError, InitConfig, InvalidConfigError, Sandbox, SandboxStatus
from pace import within

# Ends on request, as init systems do, and says so where it can be seen afterwards.
INIT = "trap 'echo asked > /asked; sync; exit 0' TERM; while :; do sleep 0.1; done"


@pytest.mark.needs("init")
async def test_the_init_is_the_first_process_beside_working_calls(harness: Harness) -> None:
    init = InitConfig("/bin/sh", ("-c", INIT, "init-of-ours"), {"FLAVOUR": "vanilla"})
    box = await harness.create(init=init, env={"COLOUR": "blue"})
    first = await box.shell("tr '\\0' ' ' < /proc/1/cmdline; echo; tr '\\0' '\\n' < /proc/1/environ | sort; echo $$")
    assert first.stdout_text.startswith("/bin/sh -c"), first.stdout_text
    assert "init-of-ours" in first.stdout_text
    assert {"FLAVOUR=vanilla", "COLOUR=blue", "HOME=/"} <= set(first.stdout_text.splitlines())
    assert "FLAVOUR" not in (await box.exec("env")).stdout_text
    await box.fs.write("/kept", b"here")
    assert (await box.exec("cat", ["/kept"])).stdout_text == "here"
    # An orphan of a program is somebody's child, and is reaped.
    assert (await box.shell("(sleep 0.1 &) ; exit 3")).exit_code == 3
    await box.stop(timeout=within(10))
    handle = await Sandbox.get("box", backend=harness.backend)
    assert handle.status is SandboxStatus.STOPPED
    again = await handle.start()
    assert (await again.exec("cat", ["/asked", "/kept"])).stdout_text == "asked\nhere"


@pytest.mark.needs("init")
async def test_an_init_that_ends_ends_the_sandbox(harness: Harness) -> None:
    box = await harness.create(init={"cmd": "/bin/sh", "args": ["-c", "while [ ! -e /go ]; do sleep 0.05; done"]})
    await box.fs.write("/go", b"")
    result = await box.wait_until_stopped()
    # Of a machine of its own the kernel does not survive its first process.
    expected = SandboxStatus.CRASHED if harness.kind == "microvm" else SandboxStatus.STOPPED
    assert result.status is expected, result


@pytest.mark.needs("init")
@pytest.mark.parametrize("init", ["/no/such/init", {"cmd": "/etc/passwd"}])
async def test_without_an_init_there_is_no_sandbox(harness: Harness, init: Any) -> None:
    with pytest.raises(BootStartError, match="no init could be executed; tried") as caught:
        await harness.create(init=init)
    cmd = init if isinstance(init, str) else init["cmd"]
    assert cmd in str(caught.value)


@pytest.mark.needs("init")
async def test_auto_names_what_it_tried(harness: Harness, tmp_path: Path) -> None:
    # A root file system without any init.
    (tmp_path / "bin").mkdir()
    with pytest.raises(BootStartError) as caught:
        await harness.create(image=str(tmp_path), init="auto")
    for place in ("/sbin/init", "/lib/systemd/systemd", "/usr/lib/systemd/systemd"):
        assert f"{place}: absent" in str(caught.value)


@pytest.mark.needs("init")
async def test_an_init_must_be_a_path(harness: Harness) -> None:
    with pytest.raises(InvalidConfigError, match="absolute path"):
        await harness.create(init="systemd")
    with pytest.raises(ValueError, match="init dict requires 'cmd'"):
        await harness.create(init={"args": []})
    with pytest.raises(TypeError, match="init must be str, Mapping"):
        await harness.create(init=7)
