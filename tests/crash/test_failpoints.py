"""L1, L2: SIGKILL at every named step of create, start, stop and remove.

`MSB_FAILPOINT=core.<step>` makes the process that uses the library kill itself at the step, `runtime.<step>` the
sandbox's runtime process. The names are read from the source, so that a new step without a test here fails. Afterwards
the home must be usable: the sandbox is absent, or it has a state, and `remove` works from it; the same name can be
created again; and nothing stays behind (the leak check). `make test-long` does each step 20 times.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from archives import Archive, directory, file, layer
from boxes import runtime_pid
from clients import KILLED, Client, finish
from homes import REPOSITORY
from leaks import read_process
from microsandbox import (
    Image,
    Sandbox,
    SandboxNotFoundError,
    SandboxStatus,
    Volume,
    VolumeAlreadyExistsError,
    VolumeNotFoundError,
)
from pace import amount, within

ROUNDS = amount(1, 20)


def runtime_steps() -> list[str]:
    source = (REPOSITORY / "rust/contract/src/step.rs").read_text()
    steps = re.findall(r'^    \w+ = "([^"]+)" in (\w+),$', source, re.MULTILINE)
    # The container has no machine to build.
    return [name for name, stage in steps if stage != "BuildVm"]


def core_steps() -> set[str]:
    """Named in core as `failpoint("…")`, `pause("…")` or `step("…", cut)`."""
    found: set[str] = set()
    for path in sorted((REPOSITORY / "rust").glob("*/src/**/*.rs")):
        found |= set(re.findall(r'\b(?:failpoint|pause|step)\(\s*"([^"]+)"', path.read_text()))
    return found


RUNTIME = runtime_steps()
# Which operation passes which step of core.
CORE = [
    ("create", "locked"),
    ("create", "inserted"),
    ("create", "rootfs"),
    ("create", "spawned"),
    ("create", "ready"),
    ("create", "recorded"),
    ("start", "rootfs"),
    ("start", "spawned"),
    ("start", "ready"),
    ("start", "recorded"),
    ("stop", "draining"),
    ("remove", "remove"),
    ("remove", "remove_row"),
]
# Whether the volume is there when its creation or removal died at the step.
VOLUMES = [
    ("create", "volume_inserted", True),
    ("remove", "volume_aside", True),
    ("remove", "volume_deleted", False),
]
# Which operation on images passes which step.
IMAGES = [
    ("load", "blob_written"),
    ("load", "image_unpacked"),
    ("save", "save_written"),
    ("prune", "prune_rows"),
    ("prune", "prune_hidden"),
]


def test_every_step_of_the_source_has_its_test() -> None:
    assert len(RUNTIME) >= 20
    of_others = {step for _, step, _ in VOLUMES} | {step for _, step in IMAGES}
    assert core_steps() == {step for _, step in CORE} | of_others


# Dies, or has its runtime die, within the operation that is named first; the failpoint is read at each step.
LIFE = """
async def main():
    wanted, failpoint = sys.argv[1:]
    async def step(name, call):
        if name == wanted:
            os.environ["MSB_FAILPOINT"] = failpoint
        return await call()
    try:
        box = await step("create", lambda: Sandbox.create("box", image="host", backend=backend))
        await step("stop", box.stop)
        box = await step("start", lambda: Sandbox.start("box", backend=backend))
        await box.exec("true")
        await box.stop()
        await step("remove", lambda: Sandbox.remove("box", backend=backend))
        print("done", flush=True)
    except MicrosandboxError as error:
        print(type(error).__name__, getattr(error, "stage", ""), flush=True)
"""


async def recovers(local: Any) -> None:
    """The home is usable, and the name too."""
    page = await Sandbox.list(backend=local)
    names = [handle.name for handle in page.sandboxes]
    assert names in ([], ["box"])
    if names:
        handle = page.sandboxes[0]
        if handle.status in (SandboxStatus.RUNNING, SandboxStatus.DRAINING):
            await handle.kill()
        await (await Sandbox.get("box", backend=local)).remove()
    with pytest.raises(SandboxNotFoundError):
        await Sandbox.get("box", backend=local)
    box = await Sandbox.create("box", image="host", backend=local)
    assert (await box.exec("echo", ["again"])).stdout_text == "again\n"
    await box.kill()
    await Sandbox.remove("box", backend=local)


@pytest.fixture(params=range(ROUNDS))
def round_number(request: pytest.FixtureRequest) -> Iterator[int]:
    return request.param


@pytest.mark.hazard("L1", "L2")
@pytest.mark.soak
@pytest.mark.parametrize("operation", ["create", "start"])
@pytest.mark.parametrize("step", RUNTIME)
async def test_the_runtime_is_killed_at_a_step(
    client: Client, local: Any, operation: str, step: str, round_number: int
) -> None:
    status, out, err = finish(client(LIFE, operation, f"runtime.{step}"))
    assert status == 0, err
    assert out.startswith("BootStartError"), (out, err)
    await recovers(local)


@pytest.mark.hazard("L1", "L2")
@pytest.mark.soak
@pytest.mark.parametrize(("operation", "step"), CORE)
async def test_the_client_is_killed_at_a_step(
    client: Client, local: Any, operation: str, step: str, round_number: int
) -> None:
    status, out, err = finish(client(LIFE, operation, f"core.{step}"))
    assert status == KILLED, f"the step was never reached: {out}{err}"
    await recovers(local)


@pytest.mark.hazard("L10")
@pytest.mark.parametrize(("operation", "step"), CORE)
async def test_the_same_name_is_free_right_after_a_kill(client: Client, local: Any, operation: str, step: str) -> None:
    """No inspection in between: the very next call is a create with replace."""
    status, out, err = finish(client(LIFE, operation, f"core.{step}"))
    assert status == KILLED, f"the step was never reached: {out}{err}"
    box = await Sandbox.create("box", image="host", backend=local, replace=True)
    assert (await box.exec("true")).exit_code == 0
    await box.kill()
    await Sandbox.remove("box", backend=local)


@pytest.mark.hazard("L1")
@pytest.mark.parametrize("delay_ms", [0, 1, 2, 4, 8, 12, 16, 20, 25, 30, 40, 60])
async def test_the_client_is_killed_some_time_into_create(client: Client, local: Any, delay_ms: int) -> None:
    """Between the named steps, too: the alarm hits wherever the process is."""
    code = f"""
    async def main():
        def strike(*_):
            os.kill(os.getpid(), signal.SIGKILL)
        await Sandbox.list(backend=backend)
        import threading
        threading.Timer({delay_ms} / 1000, strike).start()
        await Sandbox.create("box", image="host", backend=backend)
        await asyncio.sleep(30)
    """
    status, _, err = finish(client(code))
    assert status == KILLED, err
    await recovers(local)


VOLUME_LIFE = """
async def main():
    wanted, failpoint = sys.argv[1:]
    if wanted == "create":
        os.environ["MSB_FAILPOINT"] = failpoint
    volume = await Volume.create("data", backend=backend)
    await volume.fs.mkdir("a")
    await volume.fs.write("a/kept", b"of the user")
    os.environ["MSB_FAILPOINT"] = failpoint
    await Volume.remove("data", backend=backend)
"""


@pytest.mark.hazard("L1")
@pytest.mark.parametrize("at_once", [False, True], ids=["looked at", "created at once"])
@pytest.mark.parametrize(("operation", "step", "there"), VOLUMES)
async def test_the_client_is_killed_with_a_volume_at_a_step(
    client: Client, local: Any, home: Path, operation: str, step: str, there: bool, at_once: bool
) -> None:
    """A volume that is there has all of its files; one that is gone leaves none to a new one of its name."""
    status, out, err = finish(client(VOLUME_LIFE, operation, f"core.{step}"))
    assert status == KILLED, f"the step was never reached: {out}{err}"
    if at_once and there:
        with pytest.raises(VolumeAlreadyExistsError):
            await Volume.create("data", backend=local)
    elif not at_once:
        assert [volume.name for volume in await Volume.list(backend=local)] == (["data"] if there else [])
    if there:
        volume = await Volume.get("data", backend=local)
        found = await volume.fs.read("a/kept") if operation == "remove" else await volume.fs.list("")
        assert found == (b"of the user" if operation == "remove" else [])
        await Volume.remove("data", backend=local)
    else:
        if not at_once:
            with pytest.raises(VolumeNotFoundError):
                await Volume.remove("data", backend=local)
        volume = await Volume.create("data", backend=local)
        assert await volume.fs.list("") == []
        await Volume.remove("data", backend=local)
    assert os.listdir(home / "volumes") == []


@pytest.mark.hazard("L1", "L10")
@pytest.mark.parametrize("inspected", [True, False], ids=["listed before", "created at once"])
async def test_an_old_runtime_is_gone_before_its_successor_runs(
    client: Client, local: Any, home: Path, inspected: bool
) -> None:
    """A client is killed in a creation; its runtime, which nothing names yet, goes on later than the next creation begins."""
    creator = client(
        """
        async def main():
            await Sandbox.create("box", image="host", backend=backend)
        """,
        MSB_FAILPOINT="hold.ready",
        MSB_FAILPOINT_MARK=str(home / "held"),
    )
    deadline = time.monotonic() + within(60)
    while not (home / "held").exists():
        assert time.monotonic() < deadline, "the step was never reached"
        await asyncio.sleep(0.005)
    old = runtime_pid(home)
    os.kill(old, signal.SIGSTOP)
    try:
        # As of a runtime that was stopped before it had written who it is.
        (home / "sandboxes/box/runtime/identity.json").unlink()
        creator.kill()
        assert finish(creator)[0] == KILLED
        if inspected:
            assert [box.status for box in (await Sandbox.list(backend=local)).sandboxes] == [SandboxStatus.CRASHED]
        box = await Sandbox.create("box", image="host", backend=local)
        process = read_process(old)
        assert process is None or process.state == "Z", f"{process} still lives beside its successor"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(old, signal.SIGCONT)
    assert (await box.exec("sleep", ["0.2"])).exit_code == 0
    await box.kill()
    await Sandbox.remove("box", backend=local)


IMAGE_LIFE = """
async def main():
    wanted, failpoint, archive = sys.argv[1:]
    async def step(name, call):
        if name == wanted:
            os.environ["MSB_FAILPOINT"] = failpoint
        return await call()
    await step("load", lambda: Image.load(archive, tag="app:1", backend=backend))
    await step("save", lambda: Image.save("app:1", output_path=archive + ".saved", backend=backend))
    await step("prune", lambda: Image.prune(backend=backend))
"""


@pytest.mark.hazard("L1")
@pytest.mark.fresh_home
@pytest.mark.parametrize(("operation", "step"), IMAGES)
async def test_the_client_is_killed_with_an_image_at_a_step(
    client: Client, local: Any, home: Path, tmp_path: Path, operation: str, step: str
) -> None:
    """Nothing half made is used: the image is whole or absent, and the next import makes it whole."""
    base = [directory("bin"), directory("etc"), directory("tmp", 0o1777), file("etc/os-release", b"NAME=test\n")]
    archive = Archive([layer(base), layer([file("etc/a", b"whole")])]).write(tmp_path / "image.tar")
    status, out, err = finish(client(IMAGE_LIFE, operation, f"core.{step}", str(archive)))
    assert status == KILLED, f"the step was never reached: {out}{err}"
    there = [image.reference for image in await Image.list(backend=local)]
    assert there == (["app:1"] if operation == "save" else [])
    assert not (tmp_path / "image.tar.saved").exists() or operation == "prune"
    await Image.load(archive, tag="app:1", backend=local)
    box = await Sandbox.create("box", image="app:1", backend=local)
    assert await box.fs.read("/etc/a") == b"whole"
    await box.kill()
    await Image.save("app:1", output_path=tmp_path / "again.tar", backend=local)
    await Sandbox.remove("box", backend=local)
    # A part that is not continued is removed after a day, and at once where the caller says so.
    await Image.prune(older_than_seconds=0, backend=local)
    cache = home / "cache"
    left = [path.name for place in ("blobs/sha256", "blobs/.part", "leases") for path in (cache / place).iterdir()]
    left += [path.name for path in (cache / "layers").iterdir() if path.name not in (".lock", ".sweep")]
    assert left == []
