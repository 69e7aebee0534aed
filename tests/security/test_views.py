"""V: what a sandbox reaches of the host's files that it may only read, and of the host's devices: their content, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import socket
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from microsandbox import Stdin, Volume
from pace import within

Make = Callable[..., Awaitable[Any]]

REACH = """
import errno, fcntl, json, os, socket, sys
def name(call):
    try:
        call()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"
held = []
def lock(how):
    held.append(open("/ro/file"))
    how(held[-1], fcntl.LOCK_EX | fcntl.LOCK_NB if how is fcntl.flock else fcntl.LOCK_SH | fcntl.LOCK_NB)
print(json.dumps({
    "socket": name(lambda: socket.socket(socket.AF_UNIX).connect("/ro/socket")),
    "write fifo": name(lambda: os.open("/ro/fifo", os.O_WRONLY | os.O_NONBLOCK)),
    "flock": name(lambda: lock(fcntl.flock)),
    "posix lock": name(lambda: lock(fcntl.lockf)),
    "content": open("/ro/file").read(),
}), flush=True)
sys.stdin.read()
"""

# inotify(7): prints each event until its input ends; of the kinds only what a reader causes too.
WATCH = """
import ctypes, os, select, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
fd = libc.inotify_init1(os.O_NONBLOCK)
places = {libc.inotify_add_watch(fd, place.encode(), 0xFFF): place for place in sys.argv[1:]}
assert -1 not in places, ctypes.get_errno()
print("watching", flush=True)
while True:
    ready, _, _ = select.select([fd, 0], [], [])
    if fd in ready:
        data = os.read(fd, 65536)
        while data:
            watch, mask, _, length = struct.unpack_from("iIII", data)
            print(places.get(watch), hex(mask), data[16 : 16 + length].rstrip(b"\\0").decode(), flush=True)
            data = data[16 + length :]
    elif not os.read(0, 1):
        break
"""


@pytest.fixture
def shown(tmp_path: Path) -> Iterator[Path]:
    """A directory of the host with a listening socket, a FIFO that is being read, and a file."""
    directory = tmp_path / "shown"
    directory.mkdir()
    (directory / "file").write_text("content")
    os.mkfifo(directory / "fifo")
    os.chmod(directory / "fifo", 0o666)
    reader = os.open(directory / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    with socket.socket(socket.AF_UNIX) as listener:
        # The path may be too long for an address.
        place = os.open(directory, os.O_PATH)
        listener.bind(f"/proc/self/fd/{place}/socket")
        os.chmod(directory / "socket", 0o777)
        listener.listen()
        yield directory
    os.close(place)
    os.close(reader)


async def said(box: Any) -> dict[str, tuple[str, str | None]]:
    return {m.name: (m.state.value, m.reason) for m in (await box.isolation_report()).mechanisms}


async def started(box: Any, program: str, *arguments: str) -> tuple[Any, Any, str]:
    """A Python program inside: its handle, its input, and the first line that it says."""
    handle = await box.exec_stream("python3", ["-c", program, *arguments], stdin=Stdin.pipe())
    text = b""
    while b"\n" not in text:
        event = await asyncio.wait_for(handle.recv(), within(20))
        assert event is not None, text
        text += event.data or b""
    return handle, handle.take_stdin(), text.decode()


@pytest.mark.hazard("V4")
async def test_a_read_only_bind_reaches_nothing_but_content(make: Make, shown: Path) -> None:
    box = await make(volumes={"/ro": Volume.bind(str(shown), readonly=True)})
    handle, sink, text = await started(box, REACH)
    # What the guest holds now blocks no writer here.
    with open(shown / "file", "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    await sink.close()
    assert (await handle.wait())[1]
    assert json.loads(text) == {
        "socket": "ECONNREFUSED",
        "write fifo": "ENXIO",
        "flock": "done",
        "posix lock": "done",
        "content": "content",
    }
    assert (await said(box))["readonly_views"][0] == "on"


@pytest.mark.hazard("V4")
async def test_a_guest_sees_no_activity_of_host_or_sibling(make: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    watched = ["/usr/bin", "/usr/bin/md5sum", "/ro", "/ro/file"]
    if os.getuid() == 0:
        watched += ["/dev/null", "/dev/urandom"]
        # Masked with a device.
        watched += [path for path in ("/proc/keys", "/proc/kcore") if Path(path).exists()][:1]
    box = await make(volumes={"/ro": Volume.bind(str(tmp_path), readonly=True)})
    sibling = await make("sibling")
    handle, sink, text = await started(box, WATCH, *watched)
    assert text == "watching\n"
    subprocess.run(["/usr/bin/md5sum", tmp_path / "file"], check=True, stdout=subprocess.DEVNULL)
    (tmp_path / "new").write_text("y")
    for device in ("/dev/null", "/dev/urandom"):
        Path(device).open("rb").close()
    assert (await sibling.shell("md5sum /usr/bin/env; head -c 1 /dev/urandom > /dev/null")).success
    await sink.close()
    assert (await handle.collect()).stdout_text == ""


async def test_no_path_of_the_host_is_in_the_list_of_mounts(make: Make, tmp_path: Path, home: Path) -> None:
    (tmp_path / "file").write_text("x")
    binds = {"/ro": Volume.bind(str(tmp_path), readonly=True), "/f": Volume.bind(str(tmp_path / "file"), readonly=True)}
    box = await make("curious", volumes=binds, scripts={"greet": "echo hello"})
    mounts = (await box.exec("cat", ["/proc/self/mountinfo"])).stdout_text
    visible = [
        line for line in mounts.splitlines() if any(text in line for text in (str(home), str(tmp_path), "curious"))
    ]
    assert visible == []
    assert (await box.exec("greet")).stdout_text == "hello\n"


@pytest.fixture
def mounted() -> Iterator[Callable[..., None]]:
    """Mounts that are gone after the test."""
    places: list[Path] = []

    def mount(*arguments: str | Path) -> None:
        subprocess.run(["mount", *arguments], check=True)
        places.append(Path(arguments[-1]))

    yield mount
    for place in reversed(places):
        subprocess.run(["umount", place], check=True)


@pytest.mark.root
@pytest.mark.skipif(os.getuid() != 0, reason="mounts need root")
async def test_mounts_within_a_read_only_bind_are_views_too(
    make: Make, tmp_path: Path, mounted: Callable[..., None]
) -> None:
    inner = tmp_path / "a b" / "inner"
    inner.mkdir(parents=True)
    mounted("-t", "tmpfs", "-o", "mode=755", "views-test", inner)
    (inner / "file").write_text("of the inner mount")
    os.mkfifo(inner / "fifo")
    os.chmod(inner / "fifo", 0o666)
    box = await make(volumes={"/ro": Volume.bind(str(tmp_path), readonly=True)})
    reader = os.open(inner / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    done = await box.shell("cat '/ro/a b/inner/file'; timeout 5 dd if=/dev/null of='/ro/a b/inner/fifo' oflag=nonblock")
    os.close(reader)
    assert done.stdout_text == "of the inner mount"
    assert "No such device or address" in done.stderr_text
    assert not (await box.shell("touch '/ro/a b/inner/new'")).success
    assert (await said(box))["readonly_views"][0] == "on"


async def test_a_shown_file_is_a_view_of_that_file_alone(make: Make, shown: Path) -> None:
    box = await make(volumes={"/etc/shown.conf": Volume.bind(str(shown / "file"), readonly=True)})
    with open(shown / "file", "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = await box.shell("cat /etc/shown.conf; flock -n /etc/shown.conf echo ' locked'; ls /etc/shown.conf/..")
    assert done.stdout_text == "content locked\n"
    (shown / "file").write_text("changed")
    assert (await box.shell("cat /etc/shown.conf")).stdout_text == "changed"


async def shows(box: Any, script: str, expected: str) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within(10)):
            while (await box.shell(script)).stdout_text != expected:
                await asyncio.sleep(0.05)
    assert (await box.shell(script)).stdout_text == expected


async def test_the_refreshing_process_has_no_rights_and_ends(make: Make, tmp_path: Path, home: Path) -> None:
    box = await make(volumes={"/ro": Volume.bind(str(tmp_path), readonly=True)})
    identity = json.loads((home / "sandboxes/box/runtime/identity.json").read_text())
    runtime, init = identity["runtime"]["pid"], identity["init"]["pid"]
    children = Path(f"/proc/{runtime}/task/{runtime}/children").read_text().split()
    (refresher,) = [int(pid) for pid in children if int(pid) != init]
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{refresher}/status").read_text().splitlines())
    assert (status["CapEff"].strip(), status["CapPrm"].strip(), status["NoNewPrivs"]) == ("0" * 16, "0" * 16, "1")
    kinds = [os.readlink(entry) for entry in Path(f"/proc/{refresher}/fd").iterdir()]
    assert all("fscontext" in kind or kind.startswith("socket:") for kind in kinds), kinds
    await shows(box, "cat /ro/later 2> /dev/null", "")
    (tmp_path / "later").write_text("made")
    await shows(box, "cat /ro/later 2> /dev/null", "made")
    await box.kill()
    async with asyncio.timeout(within(10)):
        while Path(f"/proc/{refresher}").exists():
            await asyncio.sleep(0.02)
