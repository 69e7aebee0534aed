"""What the guest sees of files that are also the host's: pages of the host's own cache where no other process changes them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from archives import Archive, directory, file, layer, symlink
from microsandbox import Image
from pace import within

Make = Callable[..., Awaitable[Any]]
BUSYBOX = Path("/bin/busybox")
APPLETS = ("sh", "cat", "dd", "grep", "mount", "sha256sum", "truncate", "wc")


@pytest.fixture
def isolation() -> str:
    return "microvm"


async def test_an_archives_files_are_shared_for_reading_only(
    make: Make, local: Any, home: Path, tmp_path: Path
) -> None:
    """The first write copies a file up on the host, while the guest has its pages: it must never see the old ones again."""
    data = os.urandom(5 << 20)
    entries = [directory("bin"), directory("tmp", 0o1777), file("data", data), file("small", b"0123456789")]
    entries += [
        file("bin/busybox", BUSYBOX.read_bytes(), mode=0o755),
        *(symlink(f"bin/{n}", "busybox") for n in APPLETS),
    ]
    await Image.load(str(Archive([layer(entries)]).write(tmp_path / "image.tar")), tag="files:1", backend=local)
    box = await make(image="files:1", memory=256)
    assert "dax=always" in (await box.shell("mount -t proc proc /proc; grep ' / ' /proc/mounts")).stdout_text

    changed = bytearray(data)
    changed[3 << 20 : (3 << 20) + 4] = b"here"
    script = """
cat /data > /dev/null; cat /small
printf here | dd of=/data bs=1 seek=3145728 conv=notrunc 2> /dev/null
printf AB | dd of=/small bs=1 seek=4 conv=notrunc 2> /dev/null; cat /small
printf more >> /small; cat /small; truncate -s 6 /small; cat /small; truncate -s 8 /small; cat /small
"""
    output = await box.shell(script)
    assert output.stdout_bytes == b"0123456789" + b"0123AB6789" + b"0123AB6789more" + b"0123AB" + b"0123AB\0\0"
    assert await box.fs.read("/data") == bytes(changed)
    # On the host the layer is what it was, and the sandbox has its own.
    cache = Path(json.loads((home / "config.json").read_text())["paths"]["cache"])
    assert [path.read_bytes() for path in cache.glob("layers/**/data")] == [data]
    assert (home / "sandboxes" / "box" / "upper" / "data").read_bytes() == bytes(changed)


async def test_a_directory_may_change_beneath_a_machine(make: Make, local: Any, tmp_path: Path) -> None:
    """A file that is cut off on the host is short inside, and nothing hangs."""
    root = tmp_path / "root"
    for name in ("bin", "tmp"):
        (root / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, root / "bin" / "busybox")
    for name in APPLETS:
        (root / "bin" / name).symlink_to("busybox")
    (root / "data").write_bytes(b"x" * 300_000)
    box = await make(image=str(root), memory=256)
    assert (await box.shell("cat /data | wc -c")).stdout_text.strip() == "300000"
    os.truncate(root / "data", 10)
    # The guest believes a size for some seconds.
    await asyncio.sleep(within(1))
    output = await asyncio.wait_for(box.shell("cat /data | wc -c"), within(10))
    assert output.stdout_text.strip() == "10"
