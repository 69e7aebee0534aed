"""A random walk: processes that load, create, save, prune and remove images of one home, beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from archives import Archive, directory, file, layer
from clients import Client, finish
from microsandbox import Image, Sandbox
from pace import amount, within

pytestmark = pytest.mark.fresh_home

BASE = [directory("bin"), directory("etc"), directory("tmp", 0o1777), file("etc/os-release", b"NAME=test\n")]
SECONDS = amount(5, 60)

WALK = """
import random, tarfile, hashlib

def whole(path):
    "Every blob of a saved archive has the digest of its name."
    with tarfile.open(path) as archive:
        for member in archive:
            if member.name.startswith("blobs/"):
                data = archive.extractfile(member).read()
                assert hashlib.sha256(data).hexdigest() == member.name.rpartition("/")[2], member.name

async def main():
    me, seconds, directory = sys.argv[1], float(sys.argv[2]), sys.argv[3]
    choice = random.Random(me)
    end = time.monotonic() + seconds
    done = {}
    while time.monotonic() < end:
        number = choice.randrange(3)
        name = f"walk:{number}"
        kind = choice.choice(["load", "load", "create", "create", "save", "prune", "remove", "usage"])
        try:
            if kind == "load":
                await Image.load(f"{directory}/{number}.tar", tag=name, backend=backend)
            elif kind == "create":
                box = await Sandbox.create(f"box-{me}", image=name, pull_policy="never", backend=backend, replace=True)
                for part in range(number + 1):
                    found = await box.fs.read(f"/etc/part-{part}")
                    assert found == str(part).encode(), (name, part, found)
                await box.kill()
                await Sandbox.remove(f"box-{me}", backend=backend)
            elif kind == "save":
                target = f"{directory}/saved-{me}.tar"
                await Image.save(name, output_path=target, backend=backend)
                whole(target)
            elif kind == "prune":
                await Image.prune(backend=backend)
            elif kind == "usage":
                await Storage.usage(backend=backend)
            else:
                await Image.remove(name, force=choice.random() < 0.5, backend=backend)
            done[kind] = done.get(kind, 0) + 1
        except (ImageNotFoundError, ImageInUseError) as error:
            # Removed by the other one, as a whole: never a part of it.
            assert "its layer" not in str(error), error
    print(sum(done.values()), flush=True)
"""


@pytest.mark.soak
async def test_no_image_loses_a_layer_in_a_random_walk(client: Client, local: Any, home: Path, tmp_path: Path) -> None:
    for number in range(3):
        parts = [layer([file(f"etc/part-{part}", str(part).encode())]) for part in range(number + 1)]
        Archive([layer(BASE), *parts]).write(tmp_path / f"{number}.tar")
    walkers = [client(WALK, str(number), str(SECONDS), str(tmp_path)) for number in range(2)]
    for walker in walkers:
        status, out, err = finish(walker, timeout=within(SECONDS + 60))
        assert status == 0, err
        assert int(out) > 5
    assert (await Sandbox.list(backend=local)).sandboxes == []
    await Image.prune(backend=local)
    cache = home / "cache"
    left = [path.name for place in ("blobs/sha256", "blobs/.part", "leases") for path in (cache / place).iterdir()]
    left += [path.name for path in (cache / "layers").iterdir() if path.name not in (".lock", ".sweep")]
    assert left == []
