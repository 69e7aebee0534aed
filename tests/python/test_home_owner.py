"""L5: a home, its configuration and its id map that another user could have written are refused, as ssh does."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from microsandbox import InvalidConfigError, LocalBackend, Sandbox


async def refused(home: Path, what: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        await Sandbox.list(backend=LocalBackend(home=str(home), isolation="container"))
        await Sandbox.create("box", image="host", backend=LocalBackend(home=str(home), isolation="container"))
    assert what in str(caught.value) and str(home) in str(caught.value), caught.value


async def test_a_home_that_others_can_write_is_refused(home: Path) -> None:
    home.chmod(0o777)
    await refused(home, "chmod go-w")
    home.chmod(0o755)
    assert (await Sandbox.list(backend=LocalBackend(home=str(home)))).sandboxes == []
    home.chmod(0o700)


@pytest.mark.parametrize("mode", [0o666, 0o620, 0o602])
async def test_a_configuration_that_others_can_write_is_refused(home: Path, mode: int) -> None:
    path = home / "config.json"
    path.write_text("{}")
    path.chmod(mode)
    await refused(home, "chmod go-w")


@pytest.mark.root
@pytest.mark.skipif(os.getuid() != 0, reason="giving files away needs root")
@pytest.mark.parametrize("what", ["home", "config.json", "idmap.json"])
async def test_what_belongs_to_another_user_is_refused(home: Path, what: str) -> None:
    path = home if what == "home" else home / what
    if what != "home":
        path.write_text(json.dumps({"base": 1 << 30, "count": 65_536}) if what == "idmap.json" else "{}")
    os.chown(path, 54_321, 54_321)
    await refused(home, "belongs to user 54321")
    os.chown(path, 0, 0)


@pytest.mark.root
@pytest.mark.skipif(os.getuid() != 0, reason="root alone has a range of ids for itself")
async def test_a_range_of_the_machines_own_users_is_refused(home: Path) -> None:
    (home / "idmap.json").write_text('{"base": 1000, "count": 65536}')
    await refused(home, "users of this machine")
