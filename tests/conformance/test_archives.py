"""Archives as tools make them, through `write_tar` and `read_tar`, against what GNU tar and bsdtar make of them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from backends import Harness
from microsandbox import Sandbox
from pace import LONG
from trees import ARCHIVES, describe, describe_inside, differences, make_tree, unpacked_by

pytestmark = [pytest.mark.needs("processes"), pytest.mark.heavy]


# One form costs an emulated machine 20 s. The reader is the agent's, one program for both drivers: in a machine these stand for all;
# MSB_TEST_LONG=1 scripts/run-microvm-tests tests/conformance/test_archives.py runs all.
IN_A_MACHINE = {"gnu-oldgnu-sparse", "gnu-posix-sparse-1.0", "bsd-pax", "git"}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("tree") / "tree")


async def unpack(box: Sandbox, data: bytes, path: str) -> None:
    async with await box.fs.write_tar(path) as sink:
        for at in range(0, len(data), 700_001):
            await sink.write(data[at : at + 700_001])


@pytest.mark.hazard("I9")
@pytest.mark.parametrize("form", list(ARCHIVES))
async def test_every_form_is_unpacked_as_tar_unpacks_it(
    shared_harness: Harness, shared_box: Sandbox, tree: Path, tmp_path: Path, form: str
) -> None:
    if shared_harness.kind == "microvm" and form not in IN_A_MACHINE and not LONG:
        pytest.skip("one of the forms that the container driver reads with the same agent")
    archive = ARCHIVES[form](tree.parent, tree.name)
    theirs = [describe(unpacked_by(tool, archive, tmp_path / tool)) for tool in ("tar", "bsdtar")]
    await unpack(shared_box, archive, "/tmp/ours")
    ours = await describe_inside(shared_box, "/tmp/ours")
    # The directory itself is no entry of the archive.
    for described in (ours, *theirs):
        del described[""]
    assert len(ours) > 5
    assert differences(ours, theirs, owners=os.geteuid() == 0) == []


async def test_an_archive_that_is_read_is_unpacked_alike_by_tools(
    shared_box: Sandbox, tree: Path, tmp_path: Path
) -> None:
    await unpack(shared_box, ARCHIVES["gnu-posix-sparse-1.0"](tree.parent, tree.name), "/tmp")
    inside = await describe_inside(shared_box, f"/tmp/{tree.name}")
    archive = b"".join([chunk async for chunk in await shared_box.fs.read_tar(f"/tmp/{tree.name}")])
    for tool in ("tar", "bsdtar"):
        out = describe(unpacked_by(tool, archive, tmp_path / tool))
        del out[""]
        wanted = {name: entry for name, entry in inside.items() if name and entry.kind != "p"}
        assert differences(out, [wanted], owners=os.geteuid() == 0) == [], tool
    # Holes are not in the archive.
    assert len(archive) < 4 << 20
    listing = subprocess.run(["tar", "-tf", "-"], input=archive, check=True, capture_output=True)
    assert listing.stderr == b""
    await unpack(shared_box, archive, "/tmp/again")
    again = await describe_inside(shared_box, "/tmp/again")
    # The directory itself is no entry of the archive, a fifo goes nowhere.
    del again[""], inside[""], inside["fifo"]
    assert differences(again, [inside]) == []
