"""Layers and image archives as tools make them, and directories of an image under the file API."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from archives import Archive, directory, file, hardlink, layer, raw, symlink
from microsandbox import FilesystemError, Image, ImagePullFailedError
from trees import ARCHIVES, Described, describe, differences, make_tree, unpacked_by

pytestmark = pytest.mark.fresh_home

Make = Callable[..., Awaitable[Any]]
BASE = [directory("bin"), directory("etc"), directory("tmp", 0o1777), file("etc/os-release", b"NAME=test\n")]


def unpacked_layer(home: Path) -> dict[str, Described]:
    """What the only layer beside the base became, with the ids that are seen inside."""
    trees = [path for path in (home / "cache" / "layers").iterdir() if path.is_dir()]
    found = [path for path in trees for path in [*path.glob("**/tree")] if (path / "plain").exists()]
    assert len(found) == 1, trees
    shift = (found[0] / "plain").stat().st_uid - (1 if os.geteuid() == 0 else 0)
    tree = describe(found[0])
    return {
        name: Described(**{**vars(entry), "uid": entry.uid - shift, "gid": entry.gid - shift})
        for name, entry in tree.items()
    }


@pytest.mark.root
@pytest.mark.parametrize("form", list(ARCHIVES))
async def test_a_layer_of_every_form_is_unpacked_as_tar_unpacks_it(
    local: Any, home: Path, tmp_path: Path, form: str
) -> None:
    tree = make_tree(tmp_path / "tree")
    archive = ARCHIVES[form](tree.parent, tree.name)
    await Image.load(str(Archive([layer(BASE), archive]).write(tmp_path / "image.tar")), tag="t", backend=local)
    theirs = [describe(unpacked_by(tool, archive, tmp_path / tool) / tree.name) for tool in ("tar", "bsdtar")]
    assert differences(unpacked_layer(home), theirs, owners=form != "git") == []


PACKERS = {
    "gnu-ustar": ["tar", "--format=ustar"],
    "gnu-gnu": ["tar", "--format=gnu"],
    "gnu-posix": ["tar", "--format=posix"],
    "bsd-ustar": ["bsdtar", "--format=ustar"],
    "bsd-pax": ["bsdtar", "--format=pax"],
    "busybox": ["busybox", "tar"],
}


@pytest.mark.parametrize("packer", list(PACKERS))
async def test_an_image_archive_of_every_tool_is_loaded(local: Any, tmp_path: Path, packer: str) -> None:
    layout = tmp_path / "layout"
    layout.mkdir()
    made = Archive([layer([*BASE, file("etc/x", b"1")])]).write(tmp_path / "made.tar")
    subprocess.run(["tar", "-xf", made, "-C", layout], check=True)
    subprocess.run([*PACKERS[packer], "-C", layout, "-cf", tmp_path / "image.tar", "."], check=True)
    (handle,) = await Image.load(str(tmp_path / "image.tar"), tag="t", backend=local)
    assert handle.layer_count == 1


async def test_a_sparse_image_archive_is_refused_by_name(local: Any, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    layout.mkdir()
    made = Archive([layer([*BASE, file("etc/x", bytes(8 << 20))])], compress=False).write(tmp_path / "made.tar")
    subprocess.run(["tar", "-xf", made, "-C", layout], check=True)
    with_holes = tmp_path / "with-holes"
    subprocess.run(["cp", "-r", "--sparse=always", layout, with_holes], check=True)
    pack = ["tar", "--format=posix", "--sparse", "-C", with_holes, "-cf", tmp_path / "image.tar", "."]
    subprocess.run(pack, check=True)
    with pytest.raises(ImagePullFailedError, match="is a sparse file"):
        await Image.load(str(tmp_path / "image.tar"), tag="t", backend=local)


@pytest.mark.hazard("I8", "I9")
async def test_content_of_a_whiteout_is_no_header(local: Any, make: Make, tmp_path: Path) -> None:
    below = layer([*BASE, directory("d"), file("d/gone"), file("d/kept")])
    above = raw(b"d/.wh.gone", raw(b"hidden", b"x")) + raw(b"d/after", b"in step") + bytes(1024)
    await Image.load(str(Archive([below, above]).write(tmp_path / "image.tar")), tag="t", backend=local)
    box = await make(image="t")
    assert [entry.path for entry in await box.fs.list("/d")] == ["/d/after", "/d/kept"]
    assert not await box.fs.exists("/hidden")


async def test_a_directory_of_the_image_is_renamed(local: Any, make: Make, tmp_path: Path) -> None:
    tree = [
        directory("opt"),
        directory("opt/app", 0o750),
        directory("opt/app/empty", 0o700),
        file("opt/app/tool", b"#!/bin/sh\n", mode=0o755, uid=5, gid=6),
        hardlink("opt/app/second", "opt/app/tool"),
        symlink("opt/app/link", "/etc/os-release"),
        directory("opt/other"),
        file("opt/other/kept"),
        directory("opt/nothing"),
    ]
    await Image.load(str(Archive([layer([*BASE, *tree])]).write(tmp_path / "image.tar")), tag="t", backend=local)
    box = await make(image="t")
    fs = box.fs
    before = await fs.stat("/opt/app")
    with pytest.raises(FilesystemError) as caught:
        await fs.rename("/opt/app", "/opt/other")
    assert caught.value.kind == "ENOTEMPTY"
    with pytest.raises(FilesystemError) as caught:
        await fs.rename("/opt/app", "/opt/app/empty/inside")
    assert caught.value.kind == "EINVAL"
    # Onto an empty directory of the image, as rename(2) does.
    await fs.rename("/opt/app", "/opt/nothing")
    await fs.rename("/opt/nothing", "/srv-app")
    assert [entry.path for entry in await fs.list("/opt")] == ["/opt/other"]
    names = ["empty", "link", "second", "tool"]
    assert [entry.path for entry in await fs.list("/srv-app")] == [f"/srv-app/{name}" for name in names]
    after = await fs.stat("/srv-app")
    assert (after.mode, after.modified) == (before.mode, before.modified)
    assert (await fs.stat("/srv-app/empty")).mode & 0o7777 == 0o700
    tool = await fs.stat("/srv-app/tool")
    assert (tool.mode & 0o7777, tool.uid, tool.gid) == (0o755, 5, 6)
    assert await fs.readlink("/srv-app/link") == "/etc/os-release"
    # Both names are still one file.
    await fs.truncate("/srv-app/second", 3)
    assert await fs.read("/srv-app/tool") == b"#!/"
    assert await fs.read("/etc/os-release") == b"NAME=test\n"
