"""What the host itself runs short of, and what a sandbox may take from its neighbours."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from clients import Client, finish

pytestmark = pytest.mark.alone

Make = Callable[..., Awaitable[Any]]


@pytest.mark.hazard("S2")
def test_a_file_size_limit_of_the_host_is_an_error(client: Client) -> None:
    """SIGXFSZ ends a process that does not expect it; the agent writes files, the runtime writes the log."""
    code = """
    async def main():
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, 4 << 20))
        async with await Sandbox.create("box", image="host", backend=backend) as box:
            try:
                await box.fs.write("/root/big", b"x" * (8 << 20))
                raise SystemExit("wrote more than the limit?")
            except FilesystemError as error:
                assert error.errno == 27, (error.kind, error.errno)
            assert not await box.fs.exists("/root/big"), "a part of a file is visible"
            # More than the limit for the log, which rotates later than that.
            output = await box.exec("sh", ["-c", "yes a line of text | head -c 9000000"], max_output_bytes=100)
            assert output.stdout_total == 9_000_000, output.stdout_total
            assert (await box.exec("echo", ["alive"])).stdout_text == "alive\\n"
            said = "".join(entry.text() for entry in await box.logs(sources=[LogReadSource.ALL]))
            assert "bytes of output were lost" in said, said[-500:]
            assert (await box.status()) is SandboxStatus.RUNNING
        print("done", flush=True)
    """
    status, out, err = finish(client(code), 100)
    assert (status, out) == (0, "done\n"), err


@pytest.mark.hazard("R7")
async def test_a_disk_flood_leaves_the_neighbours_responsive(make: Make) -> None:
    flooder, sibling = await make("flooder"), await make("sibling")
    script = (
        "flood() { while :; do dd if=/dev/zero of=/root/$1 bs=1M count=16 oflag=direct conv=notrunc,fsync 2>/dev/null"
        " || dd if=/dev/zero of=/root/$1 bs=1M count=16 conv=notrunc,fsync 2>/dev/null; done; }\n"
        "for n in 1 2; do flood $n & done; wait"
    )
    flood = await flooder.exec_stream("sh", ["-c", script])
    latencies = []
    end = time.monotonic() + 4
    while time.monotonic() < end:
        began = time.monotonic()
        assert (await sibling.exec("true")).exit_code == 0
        latencies.append(time.monotonic() - began)
    assert await flooder.fs.exists("/root/1"), "nothing was written: the test proves nothing"
    await flood.kill()
    await flood.wait()
    latencies.sort()
    assert latencies[int(len(latencies) * 0.99)] < 1, f"{len(latencies)} calls, slowest {latencies[-3:]}"
