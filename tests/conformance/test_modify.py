"""Changing a sandbox that exists."""

from __future__ import annotations

import pytest
from backends import Harness
from microsandbox import (
    ChangeKind,
    InvalidConfigError,
    ModificationDisposition,
    ModificationPolicy,
    PlannedChangeKind,
    Sandbox,
    SandboxNotFoundError,
    SandboxStatus,
    UnsupportedError,
)

pytestmark = pytest.mark.needs("modify")

LIVE = ModificationDisposition.LIVE


async def config(harness: Harness) -> dict:
    return (await Sandbox.get("box", backend=harness.backend)).config()


async def test_labels_environment_and_directory_change_immediately(harness: Harness) -> None:
    box = await harness.create(env={"GONE": "1", "KEPT": "2"}, labels={"old": "x", "same": "y"})
    plan = await box.modify(
        env={"NEW": "a b=c", "KEPT": "3"}, env_rm=["GONE"], labels={"old": "z"}, labels_rm=["same"], workdir="/tmp"
    )
    assert (plan["applied"], plan["status"], plan["conflicts"]) == (True, SandboxStatus.RUNNING, [])
    assert {change["disposition"] for change in plan["changes"]} == {LIVE}
    assert {change["kind"] for change in plan["changes"]} == {PlannedChangeKind.CONFIG}
    by_name = {
        (change["field"], change.get("after", change.get("before"))): change["change"] for change in plan["changes"]
    }
    assert by_name == {
        ("env", "GONE=…"): ChangeKind.REMOVED,
        ("env", "KEPT=…"): ChangeKind.UPDATED,
        ("env", "NEW=…"): ChangeKind.ADDED,
        ("label", "old=z"): ChangeKind.UPDATED,
        ("label", "same=y"): ChangeKind.REMOVED,
        ("workdir", "/tmp"): ChangeKind.ADDED,
    }
    said = (await box.shell("echo $NEW,$KEPT,${GONE-unset},$PWD")).stdout_text
    assert said == "a b=c,3,unset,/tmp\n"
    assert [
        item.name for item in (await Sandbox.list_with(labels={"old": "z"}, backend=harness.backend)).sandboxes
    ] == ["box"]
    await box.stop()
    again = await Sandbox.start("box", backend=harness.backend)
    assert (await again.shell("echo $NEW,$KEPT,${GONE-unset},$PWD")).stdout_text == said


async def test_a_dry_run_changes_nothing(harness: Harness, box: Sandbox) -> None:
    before = await config(harness)
    plan = await box.modify(labels={"a": "b"}, env={"X": "secret-value"}, dry_run=True)
    assert plan["applied"] is False and len(plan["changes"]) == 2
    assert "secret-value" not in str(plan)
    assert await config(harness) == before
    assert (await box.shell("echo ${X-unset}")).stdout_text == "unset\n"


async def test_nothing_to_change_is_fine(box: Sandbox) -> None:
    plan = await box.modify()
    assert (plan["applied"], plan["changes"]) == (True, [])


async def test_a_container_grows_up_to_its_ceiling(harness: Harness) -> None:
    if harness.kind == "microvm":
        pytest.skip("a virtual machine gets them at its start; the next test holds that")
    box = await harness.create(memory=128, max_memory=256, cpus=1, max_cpus=2)
    hungry = "import sys; data = bytearray(170 << 20); print(len(data))"
    assert (await box.exec("python3", ["-c", hungry])).oom_killed
    plan = await box.modify(memory=256, cpus=2)
    assert {change["field"]: change["disposition"] for change in plan["changes"]} == {"memory": LIVE, "cpus": LIVE}
    assert [status["resource"].value for status in plan["resize_status"]] == ["cpus", "memory"]
    assert (await box.exec("python3", ["-c", hungry])).success
    assert (await box.metrics()).memory_limit_bytes >= 256 << 20
    resources = (await config(harness))["resources"]
    assert (resources["memory_mib"], resources["cpus"]) == (256, 2)
    await box.modify(memory=96, cpus=1)
    assert (await box.exec("python3", ["-c", hungry])).oom_killed
    holder = await box.exec_stream(
        "python3",
        [
            "-c",
            hungry.replace("170", "80").replace("print", "import time; print")
            + "; sys.stdout.flush(); time.sleep(600)",
        ],
    )
    while (event := await holder.recv()) is not None and event.data is None:
        pass
    with pytest.raises(InvalidConfigError, match="in use"):
        await box.modify(memory=32)
    assert (await config(harness))["resources"]["memory_mib"] == 96


async def test_what_needs_a_start_is_refused_stored_or_done(harness: Harness, box: Sandbox) -> None:
    before = await config(harness)
    above = before["resources"]["max_memory_mib"] + 64
    wanted = {"memory": above, "max_memory": above, "labels": {"tried": "yes"}}
    with pytest.raises(InvalidConfigError, match="cannot apply modification: memory: ") as caught:
        await box.modify(**wanted)
    assert "next_start" in str(caught.value)
    assert await config(harness) == before
    plan = await box.modify(**wanted, dry_run=True)
    assert {conflict["field"] for conflict in plan["conflicts"]} == {"memory", "max_memory"}
    plan = await box.modify(**wanted, policy=ModificationPolicy.NEXT_START)
    assert {change["field"]: change["disposition"] for change in plan["changes"]} == {
        "memory": ModificationDisposition.NEXT_START,
        "max_memory": ModificationDisposition.NEXT_START,
        "label": LIVE,
    }
    started = (await box.exec("cat", ["/proc/sys/kernel/random/boot_id"])).stdout_text
    plan = await box.modify(memory=above + 64, max_memory=above + 64, policy="restart")
    assert plan["applied"] and plan["changes"][0]["disposition"] is ModificationDisposition.REQUIRES_RESTART
    handle = await Sandbox.get("box", backend=harness.backend)
    again = await handle.connect()
    assert handle.config()["resources"]["memory_mib"] == above + 64
    assert (await again.exec("true")).success and started


async def test_a_stopped_sandbox_takes_it_at_its_next_start(harness: Harness, box: Sandbox) -> None:
    await box.stop()
    handle = await Sandbox.get("box", backend=harness.backend)
    plan = await handle.modify(env={"LATER": "1"}, max_memory=700)
    assert {change["disposition"] for change in plan["changes"]} == {ModificationDisposition.NEXT_START}
    again = await handle.start()
    assert (await again.shell("echo $LATER")).stdout_text == "1\n"


async def test_what_makes_no_sense_is_refused_and_changes_nothing(harness: Harness, box: Sandbox) -> None:
    before = await config(harness)
    for bad in ({"memory": 1}, {"cpus": 2, "max_cpus": 1}, {"env": {"A": "1"}, "env_rm": ["A"]}, {"env": {"": "x"}}):
        with pytest.raises((InvalidConfigError, ValueError)):
            await box.modify(**bad)
    for bad in ({"memory": True}, {"env": ["A=1"]}, {"env_rm": "A"}, {"policy": "sometime"}, {"labels": {"a": 1}}):
        with pytest.raises(TypeError):
            await box.modify(**bad)
    for later in ({"root_disk_size": 1}, {"secrets": {"a": {"env": "A"}}}, {"ports": {80: 80}}):
        with pytest.raises(UnsupportedError):
            await box.modify(**later)
    assert await config(harness) == before
    handle = await Sandbox.get("box", backend=harness.backend)
    await box.destroy(force=True)
    with pytest.raises(SandboxNotFoundError):
        await handle.modify(labels={"a": "b"})
