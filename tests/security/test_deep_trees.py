"""A guest that nests directories without bound, seen from this side: whoever removes what it left is neither ended nor refused."""

from __future__ import annotations

import asyncio
import resource
import sys
from pathlib import Path

import pytest
from pace import amount, within

# Deeper than the stack of a thread is for a removal that recurses, and than most limits of descriptors are for one that opens each level.
LEVELS = amount(20_000, 50_000)

# In a process of its own, which a removal that recurses would end.
REMOVE = """
import asyncio, resource, sys
from microsandbox import LocalBackend, Sandbox, Volume

home, levels, limit = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
NEST = f"import os\\nfor _ in range({levels}): os.mkdir('d'); os.chdir('d')"

async def main():
    local = LocalBackend(home=home, isolation="container")
    volume = await Volume.create("deep", backend=local)
    box = await Sandbox.create("deep", image="host", volumes={"/v": Volume.named("deep")}, backend=local)
    for place in ("/root", "/v"):
        done = await box.exec("python3", ["-c", NEST], cwd=place)
        assert done.exit_code == 0, done.stderr_text
    await box.kill()
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    await volume.fs.remove_dir("d")
    assert await volume.fs.list("/") == []
    await (await Sandbox.get("deep", backend=local)).remove()
    await Volume.remove("deep", backend=local)

asyncio.run(main())
"""


def limits() -> list[int]:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return [limit if hard == resource.RLIM_INFINITY else min(limit, hard) for limit in (64, 1024, 1_048_576)]


@pytest.mark.soak
@pytest.mark.timeout(within(1200))
@pytest.mark.parametrize("limit", limits())
async def test_deep_trees_of_a_guest_are_removed(home: Path, limit: int) -> None:
    command = (sys.executable, "-c", REMOVE, str(home), str(LEVELS), str(limit))
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, stderr = await process.communicate()
    assert process.returncode == 0, f"exit {process.returncode}: {stderr.decode(errors='replace')}"
    assert not (home / "sandboxes" / "deep").exists()
    assert not (home / "volumes" / "deep").exists()
