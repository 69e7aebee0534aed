"""S1: the home lies on a 64 MiB file system of its own, which is full at the worst moments.

Everything happens in a private mount namespace: the machine sees neither the mount nor the loop device.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from archives import Archive, directory, file, layer
from clients import PRELUDE

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.getuid() != 0, reason="mounting a loop file system needs root"),
    pytest.mark.skipif(not shutil.which("mkfs.ext4"), reason="mkfs.ext4 is not installed"),
]

HELPERS = """
def fill():
    with open(home + "/filler", "ab", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                pass
    assert os.statvfs(home).f_bavail == 0

def drain():
    os.unlink(home + "/filler")

def no_space(error):
    text = str(error).lower()
    assert isinstance(error, MicrosandboxError), repr(error)
    assert "space" in text or "disk" in text or getattr(error, "errno", None) == 28, repr(error)

async def main():
    await body()
    print("done", flush=True)
"""


def run(home: Path, code: str, **environment: str) -> None:
    image = Path(f"{home}.img")
    with image.open("wb") as file:
        file.truncate(64 << 20)
    # No reserved blocks: zero bytes free is zero for root too.
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
    # Nothing is refused before the disk really is full.
    config = Path(f"{home}.json")
    config.write_text('{"disk": {"host_headroom_mib": 0}}')
    environment["MSB_CONFIG_PATH"] = str(config)
    script = PRELUDE + HELPERS + textwrap.dedent(code) + "\nasyncio.run(main())\n"
    shell = 'mount -o loop "$1" "$2" && exec "$3" -c "$4"'
    command = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        shell,
        "sh",
        image,
        home,
        sys.executable,
        script,
    ]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=100,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
        )
    finally:
        image.unlink()
        config.unlink()
    if "loop device" in done.stderr or "failed to setup loop" in done.stderr:
        pytest.skip(f"this machine gives no loop device: {done.stderr.strip()}")
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr[-3000:]


@pytest.mark.hazard("S1")
def test_create_on_a_full_disk_names_it_and_leaves_nothing(home: Path) -> None:
    run(home, """
    async def body():
        await (await Sandbox.create("first", image="host", backend=backend)).destroy(force=True)
        fill()
        try:
            await Sandbox.create("box", image="host", backend=backend)
            raise SystemExit("created on a full disk?")
        except MicrosandboxError as error:
            no_space(error)
        left = [n for n in os.listdir(home + "/sandboxes")]
        assert left == [], left
        drain()
        assert (await Sandbox.list(backend=backend)).sandboxes == []
        box = await Sandbox.create("box", image="host", backend=backend)
        assert (await box.exec("true")).exit_code == 0
        await box.destroy(force=True)
    """)  # fmt: skip


@pytest.mark.hazard("S1")
def test_a_running_sandbox_on_a_full_disk_can_be_removed(home: Path) -> None:
    run(home, """
    async def body():
        box = await Sandbox.create("box", image="host", backend=backend)
        await box.fs.write("/root/kept", b"before")
        fill()
        try:
            await box.fs.write("/root/big", b"x" * (2 << 20))
            raise SystemExit("wrote to a full disk?")
        except FilesystemError as error:
            assert error.kind == "NoSpace" or error.errno == 28, (error.kind, error.errno)
        assert not await box.fs.exists("/root/big"), "a half-written file is visible"
        # F8: an overwrite that fails leaves the old content.
        try:
            await box.fs.write("/root/kept", b"y" * (2 << 20))
            raise SystemExit("wrote to a full disk?")
        except FilesystemError:
            pass
        assert await box.fs.read("/root/kept") == b"before"
        output = await box.exec("echo", ["still answers"])
        assert output.stdout_text == "still answers\\n"
        await asyncio.wait_for(box.stop(), 20)
        await Sandbox.remove("box", backend=backend)
        assert os.listdir(home + "/sandboxes") == []
        drain()
        assert (await Sandbox.list(backend=backend)).sandboxes == []
    """)  # fmt: skip


@pytest.mark.hazard("S1")
def test_a_stopped_sandbox_can_be_removed_with_no_byte_free(home: Path) -> None:
    run(home, """
    async def body():
        box = await Sandbox.create("box", image="host", backend=backend)
        await box.stop()
        fill()
        fresh = LocalBackend(home=home, isolation="container")
        assert [h.name for h in (await Sandbox.list(backend=fresh)).sandboxes] == ["box"]
        await Sandbox.remove("box", backend=fresh)
        assert os.listdir(home + "/sandboxes") == []
    """)  # fmt: skip


@pytest.mark.hazard("DB4")
def test_a_full_disk_at_commit_loses_no_row(home: Path) -> None:
    run(home, """
    async def body():
        for name in ("a", "b"):
            await (await Sandbox.create(name, image="host", backend=backend)).stop()
        fill()
        for name in ("c", "d"):
            try:
                await Sandbox.create(name, image="host", backend=backend)
                raise SystemExit("created on a full disk?")
            except MicrosandboxError as error:
                no_space(error)
        drain()
        fresh = LocalBackend(home=home, isolation="container")
        assert [h.name for h in (await Sandbox.list(backend=fresh)).sandboxes] == ["b", "a"]
        for name in ("a", "b"):
            await Sandbox.remove(name, backend=fresh)
    """)  # fmt: skip


@pytest.mark.hazard("S1")
def test_an_image_that_does_not_fit_leaves_no_partial_layer(home: Path, debian_archive: Path) -> None:
    run(home, """
    async def body():
        try:
            await Image.load(os.environ["ARCHIVE"], tag="debian:latest", backend=backend)
            raise SystemExit("160 MiB fit into 64?")
        except MicrosandboxError as error:
            no_space(error)
        assert await Image.list(backend=backend) == []
        used = sum(os.lstat(os.path.join(d, f)).st_size for d, _, fs in os.walk(home + "/cache") for f in fs)
        assert used < 1 << 20, f"{used} bytes of a partial layer stay"
    """, ARCHIVE=str(debian_archive))  # fmt: skip


@pytest.mark.hazard("S1")
def test_images_are_pruned_on_a_full_disk(home: Path, tmp_path: Path) -> None:
    base = [directory("bin"), file("etc/os-release", b"NAME=test\n")]
    for number in range(12):
        tar = layer([*base, file("data", os.urandom(700_000) + bytes([number]))])
        Archive([tar], compress=False).write(tmp_path / f"{number}.tar")
    run(home, """
    async def body():
        archives = os.environ["ARCHIVES"]
        for number in range(12):
            await Image.load(f"{archives}/{number}.tar", tag=f"app:{number}", backend=backend)
        fill()
        try:
            await Image.save("app:1", output_path=home + "/saved.tar", backend=backend)
            raise SystemExit("saved on a full disk?")
        except MicrosandboxError as error:
            no_space(error)
        assert not [name for name in os.listdir(home) if "save" in name]
        await Image.remove("app:0", backend=backend)
        fill()
        report = await Image.prune(backend=backend)
        assert report.image_refs_removed == 11, report.image_refs_removed
        assert os.statvfs(home).f_bavail * os.statvfs(home).f_bsize > 10_000_000
        left = [n for n in os.listdir(home + "/cache/layers") if not n.startswith((".lock", ".sweep"))]
        assert left == [] and os.listdir(home + "/cache/blobs/sha256") == [], left
        drain()
        await Image.load(f"{archives}/1.tar", tag="app:1", backend=backend)
        found = [image.reference for image in await Image.list(backend=backend)]
        assert found == ["app:1"], found
    """, ARCHIVES=str(tmp_path))  # fmt: skip
