"""disk.host_headroom: while less is free than is left to the host, nothing is created, loaded or written to a volume."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from archives import Archive, directory, file, layer
from microsandbox import Image, LocalBackend, ResourceExhaustedError, Sandbox, Volume

# More than any disk has, in MiB.
ALL_OF_IT = 1 << 40


def leave_free(home: Path, mib: int) -> LocalBackend:
    """A backend of this home under another limit."""
    path = home / "config.json"
    document = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**document, "disk": {"host_headroom_mib": mib}}))
    return LocalBackend(home=str(home), isolation="container")


async def refused(call: Awaitable[Any]) -> None:
    with pytest.raises(ResourceExhaustedError) as caught:
        await call
    assert caught.value.resource == "disk"
    assert "disk.host_headroom_mib" in str(caught.value) and "free" in str(caught.value)


async def test_below_the_headroom_no_sandbox_boots(make: Callable[..., Awaitable[Any]], home: Path) -> None:
    await (await make("kept")).stop()
    full = leave_free(home, ALL_OF_IT)
    await refused(Sandbox.create("other", image="host", backend=full))
    await refused(Sandbox.create("kept", image="host", replace=True, backend=full))
    await refused(Sandbox.start("kept", backend=full))
    assert [handle.name for handle in (await Sandbox.list(backend=full)).sandboxes] == ["kept"]
    assert [path.name for path in (home / "sandboxes").iterdir()] == ["kept"]
    # What frees space works.
    await Sandbox.remove("kept", backend=full)


async def test_below_the_headroom_no_volume_is_written(home: Path) -> None:
    roomy = leave_free(home, 0)
    volume = await Volume.create("data", backend=roomy)
    await volume.fs.write("old", b"1")
    full = leave_free(home, ALL_OF_IT)
    files = (await Volume.get("data", backend=full)).fs
    await refused(Volume.create("more", backend=full))
    await refused(files.write("new", b"2"))
    await refused(files.mkdir("directory"))
    await refused(files.copy("old", "copy"))
    assert await files.read("old") == b"1"
    assert [entry.path for entry in await files.list("")] == ["old"]
    await files.remove_file("old")
    await Volume.remove("data", backend=full)


@pytest.mark.fresh_home
async def test_below_the_headroom_no_image_is_loaded(home: Path, tmp_path: Path) -> None:
    archive = Archive([layer([directory("bin"), file("bin/a", b"1")])]).write(tmp_path / "image.tar")
    full = leave_free(home, ALL_OF_IT)
    await refused(Image.load(str(archive), tag="small:1", backend=full))
    assert await Image.list(backend=full) == []
    roomy = leave_free(home, 0)
    await Image.load(str(archive), tag="small:1", backend=roomy)
    await Image.remove("small:1", backend=roomy)


async def test_the_report_says_that_no_disk_quota_holds(home: Path) -> None:
    backend = leave_free(home, 0)
    async with await Sandbox.create("box", image="host", backend=backend) as box:
        report = await box.isolation_report()
    lines = {mechanism.name: mechanism for mechanism in report.mechanisms}
    assert str(lines["disk_limit"].state) == "off" and "quota" in lines["disk_limit"].reason
