"""A: hostile or careless input is refused before anything exists."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from backends import Harness
from microsandbox import ExecFailedError, InvalidConfigError, MicrosandboxError, Sandbox, UnsupportedError, Volume


async def nothing_exists(harness: Harness) -> None:
    assert (await Sandbox.list(backend=harness.backend)).sandboxes == []
    if harness.home is not None:
        directory = harness.home / "sandboxes"
        assert not directory.exists() or list(directory.iterdir()) == []


BAD_NAMES = [
    "",
    ".",
    "..",
    ".a",
    "a/b",
    "a\\b",
    "a\0b",
    "a\nb",
    "a\x1bb",
    "-a",
    "_a",
    "x" * 129,
    "x" * 300,
    "☃",
    "a\u202eb",
    " a",
    "a b",
]


@pytest.mark.hazard("A1")
@pytest.mark.parametrize("name", BAD_NAMES)
async def test_bad_names_state_the_rule(harness: Harness, name: str) -> None:
    with pytest.raises(InvalidConfigError, match="sandbox name") as caught:
        await harness.create(name)
    assert isinstance(caught.value, ValueError)
    assert "\x1b" not in str(caught.value) and "\u202e" not in str(caught.value)
    await nothing_exists(harness)


@pytest.mark.hazard("A1")
@pytest.mark.parametrize("name", ["a", "A.b-c_9", "9", "CON", "x" * 63, "x" * 128])
async def test_good_names_work(harness: Harness, name: str) -> None:
    box = await harness.create(name)
    assert await box.name == name
    assert await box.fs.exists("/tmp")


@pytest.mark.hazard("A2")
@pytest.mark.parametrize(
    "option",
    [{"cpus": 0}, {"cpus": -1}, {"cpus": 10**6}, {"memory": 0}, {"memory": 1}, {"memory": -5}, {"memory": 2**63}],
)
async def test_sizes_out_of_range_name_the_range(harness: Harness, option: dict[str, Any]) -> None:
    with pytest.raises((InvalidConfigError, ValueError, OverflowError)) as caught:
        await harness.create("box", **option)
    assert any(character.isdigit() for character in str(caught.value)), "the message should name the range"
    await nothing_exists(harness)


@pytest.mark.hazard("A2")
@pytest.mark.parametrize(
    "option",
    [
        {"cpus": True},
        {"memory": True},
        {"memory": 512.5},
        {"memory": math.nan},
        {"memory": "512"},
        {"env": [("a", "b")]},
        {"image": 5},
    ],
)
async def test_wrong_types_come_out_of_the_call(harness: Harness, option: dict[str, Any]) -> None:
    arguments = {"image": "host", **option}
    with pytest.raises(TypeError):
        Sandbox.create("box", backend=harness.backend, **arguments)
    await nothing_exists(harness)


@pytest.mark.hazard("A3")
@pytest.mark.parametrize("key", ["", "a=b", "a\0b"])
async def test_bad_environment_keys(harness: Harness, key: str) -> None:
    with pytest.raises((InvalidConfigError, ValueError)):
        await harness.create("box", env={key: "x"})
    await nothing_exists(harness)


@pytest.mark.hazard("A3")
@pytest.mark.needs("programs")
async def test_large_environments_arrive_or_are_refused_by_kind(shared_box: Sandbox) -> None:
    value = "v" * 100_000
    output = await shared_box.exec("printenv", ["BIG"], env={"BIG": value})
    assert output.stdout_text == value + "\n"
    with pytest.raises((ExecFailedError, InvalidConfigError)) as caught:
        await shared_box.exec("true", env={"BIG": "v" * (1 << 20)})
    if isinstance(caught.value, ExecFailedError):
        assert caught.value.kind == "bad_args"
    with pytest.raises((ExecFailedError, InvalidConfigError)):
        await shared_box.exec("true", env={f"K{n}": "v" * 50 for n in range(100_000)})


async def test_image_is_required_and_exclusive(harness: Harness) -> None:
    with pytest.raises(ValueError, match="image= or from_snapshot= is required"):
        Sandbox.create("box", backend=harness.backend)
    with pytest.raises(ValueError, match="not both"), pytest.warns(DeprecationWarning, match="Sandbox.restore"):
        Sandbox.create("box", image="host", from_snapshot="s", backend=harness.backend)


async def test_unknown_keywords_are_type_errors(harness: Harness) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'no_such'"):
        Sandbox.create("box", image="host", no_such=1, backend=harness.backend)  # type: ignore[call-arg]


@pytest.mark.needs("roots")
async def test_a_missing_root_directory_is_a_configuration_error(harness: Harness) -> None:
    with pytest.raises(InvalidConfigError, match="does not exist"):
        await harness.create("box", image="/no/such/root")
    await nothing_exists(harness)


async def test_what_is_not_built_says_so_and_leaves_nothing(harness: Harness) -> None:
    for option in ({"ports": {8080: 80}}, {"thp": "always"}):
        with pytest.raises(UnsupportedError) as caught:
            await harness.create("box", **option)
        assert isinstance(caught.value, NotImplementedError)
        assert caught.value.operation and caught.value.hint
        await nothing_exists(harness)


@pytest.mark.hazard("A6")
@pytest.mark.parametrize("target", ["/", "/proc", "/data/..", "relative", "/a:b", "/a,b", "/.msb/x", "/dev/shm", ""])
async def test_a_mount_has_a_place_of_its_own(harness: Harness, target: str, tmp_path: Path) -> None:
    """What cannot be mounted is refused before anything is made; nothing is dropped silently."""
    for mount in (Volume.bind(str(tmp_path)), Volume.tmpfs()):
        with pytest.raises((UnsupportedError, InvalidConfigError)):
            await harness.create("box", volumes={target: mount})
    with pytest.raises((UnsupportedError, InvalidConfigError)):
        await harness.create("box", volumes={"/data": Volume.tmpfs(), "/data/": Volume.tmpfs()})
    await nothing_exists(harness)


@pytest.mark.hazard("A7")
@pytest.mark.needs("images")
async def test_a_root_that_holds_the_products_own_state_is_refused(harness: Harness, tmp_path: Path) -> None:
    assert harness.home is not None
    await Sandbox.list(backend=harness.backend)
    link = tmp_path / "link"
    link.symlink_to(harness.home)
    for source in (harness.home, harness.home / "db", Path("/"), harness.home.parent, link):
        with pytest.raises(InvalidConfigError, match="overlaps"):
            await harness.create("box", image=str(source))
        with pytest.raises((UnsupportedError, InvalidConfigError)):
            await harness.create("box", volumes={"/data": Volume.bind(str(source))})
        await nothing_exists(harness)


async def test_errors_carry_code_and_base(harness: Harness) -> None:
    with pytest.raises(MicrosandboxError) as caught:
        await Sandbox.get("nobody", backend=harness.backend)
    assert caught.value.code == "sandbox-not-found"
    assert str(caught.value).startswith("sandbox not found: nobody")
