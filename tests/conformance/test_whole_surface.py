"""Names of the surface that no other test of behaviour uses."""

from __future__ import annotations

import asyncio

import pytest
from backends import Harness
from microsandbox import (
    CloudBackend,
    InvalidConfigError,
    Rlimit,
    RootDisk,
    RootDiskKind,
    Sandbox,
    SandboxNotRunningError,
    SandboxStatus,
    Volume,
    backend_scope,
    default_backend_info,
)


async def test_both_objects_say_where_they_live(shared_harness: Harness, shared_box: Sandbox) -> None:
    kind = "cloud" if shared_harness.kind == "cloud" else "local"
    handle = await Sandbox.get("shared", backend=shared_harness.backend)
    assert shared_box.backend_kind == handle.backend_kind == kind


async def test_waiting_for_a_status_ends_when_it_is_seen(harness: Harness, box: Sandbox) -> None:
    assert (await box.wait_for_status(SandboxStatus.RUNNING)).status is SandboxStatus.RUNNING
    handle = await Sandbox.get("box", backend=harness.backend)
    waiting = asyncio.create_task(handle.wait_for_status(SandboxStatus.STOPPED))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    assert await box.stop_and_wait() == (0, True)
    assert (await asyncio.wait_for(waiting, 20)).status is SandboxStatus.STOPPED


async def test_connect_or_start_does_what_is_needed(harness: Harness, box: Sandbox) -> None:
    handle = await Sandbox.get("box", backend=harness.backend)
    assert (await (await handle.connect_or_start()).exec("true")).success
    await box.stop()
    again = await handle.connect_or_start(detached=True)
    assert (await again.exec("true")).success
    assert not again.owns_lifecycle


@pytest.mark.needs("force", "processes")
@pytest.mark.parametrize("who", ["sandbox", "handle"])
async def test_draining_lets_programs_end_and_refuses_new_ones(harness: Harness, box: Sandbox, who: str) -> None:
    running = await box.shell_stream("echo up; sleep 1; echo done")
    while (await running.recv()).data is None:
        pass
    owner = box if who == "sandbox" else await Sandbox.get("box", backend=harness.backend)
    await owner.request_drain()
    with pytest.raises(SandboxNotRunningError):
        await box.exec("true")
    output = await running.collect()
    assert (output.exit_code, output.stdout_text) == (0, "done\n")
    assert (await box.wait_until_stopped()).status is SandboxStatus.STOPPED


@pytest.mark.needs("processes")
async def test_limits_of_one_program_hold(shared_box: Sandbox) -> None:
    limits = [Rlimit.fsize(4096), Rlimit.memlock(8192), Rlimit.nproc(300)]
    asked = "ulimit -f; ulimit -l; head -c 9000 /dev/zero > /tmp/big; echo $?; stat -c %s /tmp/big"
    said = (await shared_box.exec("bash", ["-c", asked], rlimits=limits)).stdout_text.split()
    # bash counts both in KiB; 153 is SIGXFSZ.
    assert said == ["4", "8", "153", "4096"]
    table = (await shared_box.exec("cat", ["/proc/self/limits"], rlimits=limits)).stdout_text
    assert next(line.split()[2:4] for line in table.splitlines() if line.startswith("Max processes")) == ["300", "300"]


async def test_both_streams_say_what_was_cut(shared_box: Sandbox) -> None:
    output = await shared_box.shell("echo 12345678; echo 12345678 >&2", max_output_bytes=4)
    assert (output.stdout_truncated, output.stderr_truncated) == (True, True)
    assert (output.stdout_total, output.stderr_total) == (9, 9)
    assert output.stderr_bytes == b"678\n"


@pytest.mark.needs("metrics", "processes")
async def test_metrics_count_what_was_done(shared_box: Sandbox) -> None:
    before = await shared_box.metrics()
    await shared_box.shell("head -c 8000000 /dev/urandom > /srv-data; sync; cat /srv-data > /dev/null; rm /srv-data")
    after = await shared_box.metrics()
    for name in ("disk_read_bytes", "disk_write_bytes", "net_rx_bytes", "net_tx_bytes"):
        assert getattr(after, name) >= getattr(before, name) >= 0
    assert 0 < after.memory_bytes < after.memory_limit_bytes
    assert after.memory_available_bytes is None or after.memory_available_bytes > 0
    assert after.memory_host_resident_bytes is None or after.memory_host_resident_bytes > 0
    assert after.upper_used_bytes is None or after.upper_used_bytes >= 0
    assert after.upper_free_bytes is None or after.upper_free_bytes > 0
    assert after.upper_host_allocated_bytes is None or after.upper_host_allocated_bytes >= 0


@pytest.mark.needs("metrics", "processes")
async def test_used_room_is_that_of_the_sandbox(shared_box: Sandbox) -> None:
    """K11: it was that of the whole disk of this machine."""
    before = (await shared_box.metrics()).upper_used_bytes
    await shared_box.shell("head -c 8000000 /dev/urandom > /srv-room; sync /srv-room")
    after = (await shared_box.metrics()).upper_used_bytes
    await shared_box.shell("rm /srv-room")
    assert before is not None and after is not None
    assert before < 1 << 30
    assert 7_900_000 < after - before < 16_000_000
    last = (await shared_box.metrics()).upper_used_bytes
    assert last is not None and last < after - 7_900_000


@pytest.mark.needs("processes", "config")
async def test_the_default_command_at_this_terminal(harness: Harness, capfd: pytest.CaptureFixture[str]) -> None:
    box = await harness.create(cmd=["sh", "-c", "echo from the default; exit 6"])
    assert await box.attach_default() == 6
    assert "from the default" in capfd.readouterr().out


@pytest.mark.needs("mounts")
async def test_a_directory_volume_has_no_disk(harness: Harness) -> None:
    volume = await Volume.create("plain", backend=harness.backend)
    handle = await Volume.get("plain", backend=harness.backend)
    assert (handle.capacity_bytes, handle.disk_format, handle.disk_fstype) == (None, None, None)
    assert handle.name == volume.name == "plain"
    await handle.remove()


def test_the_environment_makes_a_cloud_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSB_API_KEY", "key-of-a-test")
    monkeypatch.setenv("MSB_API_URL", "http://127.0.0.1:9/")
    backend = CloudBackend.from_env()
    assert backend.url == "http://127.0.0.1:9" and "key-of-a-test" not in repr(backend)
    with backend_scope(backend):
        info = default_backend_info()
    assert (info.kind, info.api_url) == ("cloud", "http://127.0.0.1:9")
    monkeypatch.delenv("MSB_API_KEY")
    with pytest.raises(InvalidConfigError):
        CloudBackend.from_env()


def test_a_managed_root_disk_is_a_size() -> None:
    disk = RootDisk.managed(2048)
    assert (disk.kind, disk.size_mib) == (RootDiskKind.MANAGED, 2048)
