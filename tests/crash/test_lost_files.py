"""K1: a sandbox runs on when its files or its record are deleted, and it is found all the same."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from boxes import identity
from homes import query
from leaks import read_process
from microsandbox import InvalidStateError, Sandbox, SandboxAlreadyExistsError, SandboxStatus, SandboxStillRunningError
from pace import within

Make = Callable[..., Awaitable[Any]]
DAMAGE = ("no identity", "garbage as identity", "another process as identity", "no runtime directory", "no directory")


def damage(home: Path, how: str) -> None:
    directory = home / "sandboxes" / "box"
    file = directory / "runtime" / "identity.json"
    if how == "no identity":
        file.unlink()
    elif how == "garbage as identity":
        file.write_bytes(b"\xff{")
    elif how == "another process as identity":
        document = json.loads(file.read_text())
        document["runtime"]["start_time"] += 1
        file.write_text(json.dumps(document))
    elif how == "no runtime directory":
        shutil.rmtree(directory / "runtime")
    else:
        shutil.rmtree(directory)


def pids(home: Path) -> tuple[int, int]:
    document = identity(home)
    return document["runtime"]["pid"], document["init"]["pid"]


def alive(pid: int) -> bool:
    process = read_process(pid)
    return process is not None and process.state != "Z"


async def end(*processes: int) -> None:
    deadline = time.monotonic() + within(15)
    while any(map(alive, processes)):
        assert time.monotonic() < deadline, [read_process(pid) for pid in processes]
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("how", DAMAGE)
async def test_a_sandbox_whose_files_are_gone_is_still_running(make: Make, local: Any, home: Path, how: str) -> None:
    await make(detached=True)
    processes = pids(home)
    damage(home, how)
    handle = await Sandbox.get("box", backend=local)
    assert handle.status is SandboxStatus.RUNNING
    assert [(h.name, h.status) for h in (await Sandbox.list(backend=local)).sandboxes] == [("box", "running")]
    with pytest.raises(SandboxStillRunningError):
        await Sandbox.remove("box", backend=local)
    with pytest.raises(SandboxAlreadyExistsError):
        await Sandbox.create("box", image="host", backend=local)
    with pytest.raises(InvalidStateError, match=r"isolation report .* is lost"):
        await handle.isolation_report()
    assert all(map(alive, processes))
    await handle.kill()
    await end(*processes)
    assert (await Sandbox.get("box", backend=local)).status in (SandboxStatus.STOPPED, SandboxStatus.CRASHED)
    await Sandbox.remove("box", backend=local)
    assert not (home / "sandboxes" / "box").exists()


async def test_a_sandbox_without_files_is_stopped(make: Make, local: Any, home: Path) -> None:
    await make(detached=True)
    processes = pids(home)
    damage(home, "no directory")
    handle = await Sandbox.get("box", backend=local)
    await asyncio.wait_for(handle.stop(), within(30))
    await end(*processes)
    assert (await Sandbox.get("box", backend=local)).status is SandboxStatus.STOPPED


async def test_a_sandbox_without_files_is_replaced(make: Make, local: Any, home: Path) -> None:
    await make(detached=True)
    processes = pids(home)
    damage(home, "no directory")
    box = await Sandbox.create("box", image="host", replace=True, backend=local)
    await end(*processes)
    assert (await box.exec("true")).exit_code == 0


async def test_a_sandbox_without_identity_pauses_and_is_measured(make: Make, local: Any, home: Path) -> None:
    box = await make(memory=128)
    before = await box.metrics()
    damage(home, "no identity")
    after = await box.metrics()
    assert after.memory_limit_bytes == before.memory_limit_bytes
    assert abs(after.uptime_ms - before.uptime_ms) < 60_000
    assert (await box.exec("echo", ["on"])).stdout_text == "on\n"


@pytest.fixture
def strays(home: Path) -> Callable[..., Any]:
    """`msb` on the home of the test."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [Path(sys.executable).parent / "msb", *arguments]
        environment = {**os.environ, "MSB_HOME": str(home)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=within(120))

    return run


def check(done: subprocess.CompletedProcess[str]) -> tuple[str, str]:
    (found,) = [check for check in json.loads(done.stdout)["checks"] if check["name"] == "strays"]
    return found["state"], found["detail"]


@pytest.mark.parametrize("lost", ["row", "database", "status"])
async def test_the_doctor_ends_what_no_record_knows(
    client: Any, local: Any, home: Path, strays: Callable[..., Any], lost: str
) -> None:
    made = subprocess.run(
        [Path(sys.executable).parent / "msb", "create", "host", "-n", "box", "-q", "--isolation", "container"],
        env={**os.environ, "MSB_HOME": str(home)},
        timeout=within(60),
        check=True,
    )
    assert made.returncode == 0
    processes = pids(home)
    assert check(strays("doctor", "--format", "json"))[0] == "on"
    if lost == "database":
        for file in (home / "db").iterdir():
            file.unlink()
    else:
        query(home, "DELETE FROM sandbox" if lost == "row" else "UPDATE sandbox SET status = 'Crashed'")
    state, detail = check(strays("doctor", "--format", "json"))
    assert state == "degraded" and str(processes[0]) in detail, detail
    if lost == "status":
        refused = strays("start", "box")
    else:
        refused = strays("create", "host", "-n", "box", "-q", "--isolation", "container")
    assert refused.returncode == 1 and "msb doctor --fix" in refused.stderr, refused.stderr
    assert all(map(alive, processes))
    fixed = strays("doctor", "--fix", "--yes")
    assert "ended 1 that ran without a record" in fixed.stderr, fixed.stderr
    await end(*processes)
    assert check(strays("doctor", "--format", "json"))[0] == "on"
    done = (
        strays("remove", "box")
        if lost == "status"
        else strays("run", "host", "-q", "--isolation", "container", "-n", "box", "--", "true")
    )
    assert done.returncode == 0, done.stderr
    strays("remove", "-f", "box")
