"""Changes of the root file system before the first program."""

from __future__ import annotations

from pathlib import Path

import pytest
from backends import Harness
from microsandbox import Patch, PatchFailedError, Sandbox, SandboxNotFoundError

pytestmark = pytest.mark.needs("patches")


async def test_each_kind_of_patch_is_applied_in_order(harness: Harness, tmp_path: Path) -> None:
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "tree" / "sub" / "file").write_bytes(b"deep")
    (tmp_path / "tree" / "link").symlink_to("sub/file")
    (tmp_path / "tool").write_bytes(b"#!/bin/sh\necho tool\n")
    (tmp_path / "tool").chmod(0o755)
    box = await harness.create(
        patches=[
            Patch.text("/srv/made/greeting", "hello\n"),
            Patch.text("/srv/made/greeting", "replaced\n", mode=0o600, replace=True),
            Patch.file("/srv/raw", b"\x00\xff"),
            Patch.mkdir("/srv/dir", mode=0o1755),
            Patch.append("/srv/made/greeting", "and more\n"),
            Patch.copy_file(tmp_path / "tool", "/srv/bin/patched-tool"),
            Patch.copy_dir(tmp_path / "tree", "/srv/tree"),
            Patch.symlink("made/greeting", "/srv/link"),
            Patch.text("/srv/gone", ""),
            Patch.remove("/srv/gone"),
            Patch.remove("/srv/never-there"),
        ]
    )
    assert await box.fs.read_text("/srv/link") == "replaced\nand more\n"
    assert await box.fs.read("/srv/raw") == b"\x00\xff"
    assert (await box.fs.stat("/srv/made/greeting")).mode & 0o7777 == 0o600
    assert (await box.fs.stat("/srv/dir")).mode & 0o7777 == 0o1755
    assert (await box.exec("/srv/bin/patched-tool")).stdout_text == "tool\n"
    assert await box.fs.read("/srv/tree/link") == b"deep"
    assert (await box.fs.stat("/srv/tree/sub/file")).uid == 0
    assert await box.fs.exists("/srv/gone") is False


async def test_patches_are_part_of_the_disk(harness: Harness) -> None:
    box = await harness.create(patches=[Patch.text("/srv/kept", "once")])
    await box.fs.write_text("/srv/kept", "changed")
    await box.stop()
    again = await Sandbox.start("box", backend=harness.backend)
    assert await again.fs.read_text("/srv/kept") == "changed"


@pytest.mark.parametrize(
    ("patches", "said"),
    [
        ([Patch.text("relative", "")], "must be absolute"),
        ([Patch.text("/a/../../b", "")], "leads out of the root"),
        ([Patch.remove("/")], "root itself"),
        ([Patch.copy_file("/no/such/source", "/x")], "/no/such/source"),
        ([Patch.copy_file("/etc", "/x")], "not a regular file"),
        ([Patch.copy_dir("/etc/passwd", "/x")], "not a directory"),
        ([Patch.append("/no/such/file", "x")], "no such file to append to"),
        ([Patch.text("/srv/a", "1"), Patch.text("/srv/a", "2")], "replace=True"),
        ([Patch.text("/srv/a", "1"), Patch.symlink("x", "/srv/a")], "replace=True"),
        ([Patch.text("/srv/a", "1"), Patch.text("/srv/a/b", "2")], "/srv/a/b"),
    ],
)
async def test_a_patch_that_fails_leaves_no_sandbox(harness: Harness, patches: list[object], said: str) -> None:
    with pytest.raises(PatchFailedError, match="patch failed: ") as caught:
        await harness.create(patches=patches)
    assert said in str(caught.value)
    assert caught.value.path == patches[-1].path or caught.value.path in (patches[-1].dst, patches[-1].link)
    with pytest.raises(SandboxNotFoundError):
        await Sandbox.get("box", backend=harness.backend)
    assert harness.home is not None
    # Refused before there was anything, or taken away again.
    assert list(harness.home.glob("sandboxes/*")) == []


async def test_a_link_in_the_image_does_not_lead_to_the_host(harness: Harness, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    await harness.create(
        patches=[
            Patch.symlink(str(tmp_path), "/srv/out"),
            Patch.symlink("../../../../../../.." + str(tmp_path), "/srv/up"),
            Patch.mkdir(str(tmp_path)),
            Patch.text("/srv/out/victim", "theirs"),
            Patch.text("/srv/up/victim", "theirs", replace=True),
        ]
    )
    assert victim.read_text() == "mine"
