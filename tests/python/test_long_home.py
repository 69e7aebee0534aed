"""Socket addresses end at 107 bytes; state directories do not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from microsandbox import InvalidConfigError, LocalBackend, Sandbox

NAME = "n" * 128


async def test_a_home_far_longer_than_a_socket_address_works(home: Path) -> None:
    long = home / ("d" * 200) / ("e" * 200)
    backend = LocalBackend(home=long, isolation="container")
    async with await Sandbox.create(NAME, image="host", backend=backend) as box:
        await box.fs.write("/tmp/x", b"1")
        assert (await box.exec("cat", ["/tmp/x"])).stdout_text == "1"
        # Another client, which finds the socket by its path.
        other = await (await Sandbox.get(NAME, backend=LocalBackend(home=long, isolation="container"))).connect()
        assert (await other.ping()).name == NAME
    assert os.listdir(long / "sandboxes") == []


@pytest.mark.parametrize("levels", [3, 20, 40])
async def test_a_home_path_over_the_limit_is_refused_first(home: Path, levels: int) -> None:
    backend = LocalBackend(home=home.joinpath(*["d" * 200] * levels), isolation="container")
    with pytest.raises(InvalidConfigError, match="choose a shorter MSB_HOME"):
        await Sandbox.create("box", image="host", backend=backend)
    with pytest.raises(InvalidConfigError, match="choose a shorter MSB_HOME"):
        await Sandbox.list(backend=backend)
    assert not (home / ("d" * 200)).exists()
