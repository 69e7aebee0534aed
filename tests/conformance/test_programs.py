"""Programs as users of the peer write them (tests/conformance/programs), unmodified, each in a process of its own: nothing in
them knows where it runs, the environment does."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from archives import Archive, Entry, directory, file, layer, symlink
from backends import Harness
from microsandbox import Image, LocalBackend
from pace import within

PROGRAMS = Path(__file__).parent / "programs"
BUSYBOX = Path("/bin/busybox")
APPLETS = ["sh", "cat", "dd", "echo", "head", "ls", "sleep", "stat", "stty", "uname"]
RELEASE = b'NAME="a small Linux"\nID=alpine\n'


def small_linux() -> list[Entry]:
    """What `alpine` is in these tests: Debian's static busybox, and what the programs look at."""
    return [
        directory("bin"),
        directory("etc"),
        directory("tmp", mode=0o1777),
        file("bin/busybox", BUSYBOX.read_bytes(), mode=0o755),
        *(symlink(f"bin/{name}", "busybox") for name in APPLETS),
        file("etc/passwd", b"root:x:0:0:root:/:/bin/sh\n"),
        file("etc/os-release", RELEASE),
        file("etc/motd", b"as it came\n"),
    ]


@pytest.fixture
async def alpine(harness: Harness, tmp_path: Path) -> None:
    """An image under the bare name."""
    archive = Archive([layer(small_linux())], config={"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]}).write(
        tmp_path / "alpine.tar"
    )
    await Image.load(str(archive), tag="alpine", backend=LocalBackend(home=harness.home))


def environment(harness: Harness) -> dict[str, str]:
    """What decides where a program runs."""
    chosen = {"MSB_ISOLATION": harness.kind}
    if harness.server is not None:
        chosen = {"MSB_BACKEND": "cloud", "MSB_API_URL": harness.server.url, "MSB_API_KEY": harness.server.key}
    return {**os.environ, **chosen, "PYTHONWARNINGS": "ignore"}


async def run(harness: Harness, name: str, directory: Path, seconds: float = 60) -> str:
    """What the program prints; it must end well."""
    command = [sys.executable, str(PROGRAMS / f"{name}.py")]
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=directory,
        env=environment(harness),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), within(seconds))
    except asyncio.TimeoutError:
        process.kill()
        out, err = await process.communicate()
        pytest.fail(f"{name} hangs\n{out.decode()}\n{err.decode()}")
    assert process.returncode == 0, f"{out.decode()}\n{err.decode()}"
    return out.decode()


pytestmark = [pytest.mark.needs("processes")]


@pytest.mark.usefixtures("alpine")
async def test_root_oci(harness: Harness, tmp_path: Path) -> None:
    out = await run(harness, "root_oci", tmp_path)
    assert out == f"Hello from a sandbox! code: 0\nLinux\n{RELEASE.decode()}\n"


@pytest.mark.needs("roots")
async def test_root_bind(harness: Harness, tmp_path: Path) -> None:
    for entry in small_linux():
        path = tmp_path / "rootfs" / entry.name
        if entry.link:
            path.symlink_to(entry.link)
        elif entry.data:
            path.write_bytes(entry.data)
            path.chmod(entry.mode)
        else:
            path.mkdir(parents=True)
    # Users of the sandbox other than root must get in, too.
    (tmp_path / "rootfs").chmod(0o755)
    out = await run(harness, "root_bind", tmp_path)
    assert out == f"Hello from a sandbox! code: 0\nLinux\n{RELEASE.decode()}\n"


@pytest.mark.usefixtures("alpine")
async def test_fs_read_stream(harness: Harness, tmp_path: Path) -> None:
    out = await run(harness, "fs_read_stream", tmp_path)
    assert (found := re.fullmatch(r"chunks: (\d+)\ntotal: 10485760\n", out)), out
    assert int(found[1]) > 1


@pytest.mark.usefixtures("alpine")
async def test_logs_read(harness: Harness, tmp_path: Path) -> None:
    if harness.server is not None:
        pytest.skip("the wire has no bounded read of the log: see test_cloud_backend, which follows it")
    lines = (await run(harness, "logs_read", tmp_path)).splitlines()
    said = [re.fullmatch(r"\[(\w+)\] session=\d+ t=True '(.*)'", line) for line in lines[:-2]]
    by_source = {"stdout": "", "stderr": ""}
    for match in said:
        assert match, lines
        by_source[match[1]] += match[2] + " "
    assert {source: text.split() for source, text in by_source.items()} == {
        "stdout": ["one", "two", "three"],
        "stderr": ["problem"],
    }
    assert lines[-2:] == ["with system: True", "tail: 1"]


@pytest.mark.needs("metrics")
@pytest.mark.usefixtures("alpine")
async def test_metrics_stream(harness: Harness, tmp_path: Path) -> None:
    lines = (await run(harness, "metrics_stream", tmp_path)).splitlines()
    assert len(lines) == 6 and lines[-1] == "samples: 5 busy: True", lines


@pytest.mark.needs("patches")
@pytest.mark.usefixtures("alpine")
async def test_rootfs_patch(harness: Harness, tmp_path: Path) -> None:
    assert (await run(harness, "rootfs_patch", tmp_path)).splitlines() == [
        "/etc/greeting.txt -> Hello from a patch!",
        "/etc/motd -> Welcome.",
        '/opt/app/config.json -> {"debug": true}',
        "mode: ['755', '644']",
        "hosts: True",
    ]


@pytest.mark.usefixtures("alpine")
async def test_shell_attach_without_a_terminal_does_not_hang(harness: Harness, tmp_path: Path) -> None:
    assert (await run(harness, "shell_attach", tmp_path)).splitlines()[-1] == "shell ended with 0"


@pytest.mark.usefixtures("alpine")
async def test_shell_attach_at_a_terminal(harness: Harness, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, PROGRAMS / "shell_attach.py"],
        env=environment(harness),
        cwd=tmp_path,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    said = b""

    def read_until(text: bytes) -> None:
        nonlocal said
        while text not in said:
            try:
                piece = os.read(ours, 4096)
            except OSError:
                piece = b""
            if not piece:
                raise AssertionError(f"ended before {text!r}: {said!r}")
            said += piece

    async def step(text: bytes) -> None:
        await asyncio.wait_for(asyncio.to_thread(read_until, text), within(60))

    try:
        await step(b"# ")
        os.write(ours, b"echo $((6 * 7)) live\n")
        await step(b"42 live")
        os.write(ours, b"exit 7\n")
        await step(b"shell ended with 7")
        assert await asyncio.to_thread(process.wait, within(60)) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.mark.needs("init")
async def test_init_handoff(harness: Harness, systemd_archive: Path, tmp_path: Path) -> None:
    await Image.load(str(systemd_archive), tag="systemd", backend=LocalBackend(home=harness.home))
    if harness.kind == "container":
        with pytest.raises(
            AssertionError, match=r"is systemd, which mounts file systems .*; ask for isolation=\"microvm\""
        ):
            await run(harness, "init_handoff", tmp_path)
        return
    lines = (await run(harness, "init_handoff", tmp_path, 110)).splitlines()
    assert lines[0] == "pid 1: systemd"
    assert lines[1] in ("state: running", "state: degraded")
    assert lines[2:] == ["services: True", "stopped: stopped"]


@pytest.mark.usefixtures("alpine")
async def test_cloud_backend(harness: Harness, tmp_path: Path) -> None:
    if harness.server is None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(PROGRAMS / "cloud_backend.py"), env=environment(harness), stderr=subprocess.PIPE
        )
        _, err = await asyncio.wait_for(process.communicate(), within(60))
        assert (process.returncode, err) == (1, b"set MSB_BACKEND=cloud and MSB_API_KEY\n")
        return
    lines = (await run(harness, "cloud_backend", tmp_path)).splitlines()
    assert lines[0] == "exec code: 0 hello"
    assert lines[-2:] == ["status: stopped", "removed"]
    assert all(re.match(r"\d{13} \[(stdout|stderr|system)\] ", line) for line in lines[1:-3]), lines
    assert lines[-3] == f"entries: {len(lines) - 4}"
