"""What the table of differences says is so: refused by name, with a hint, and nothing happens."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from backends import DIFFERENCES, Harness
from homes import REPOSITORY
from microsandbox import Image, IsolationUnavailableError, Sandbox, UnsupportedError

# By row of the table: what is refused.
REFUSED: dict[str, list[Callable[[Any, Any], Awaitable[Any]]]] = {
    "force": [lambda box, _handle: box.kill(), lambda box, _handle: box.stop(timeout=0)],
    "metrics": [lambda box, _handle: box.metrics(), lambda box, _handle: first(box.metrics_stream(interval=0.1))],
    "ping": [lambda box, _handle: box.ping()],
    "touch": [lambda box, _handle: box.touch()],
}


async def first(stream: Awaitable[Any]) -> Any:
    async for sample in await stream:
        return sample
    return None


@pytest.mark.parametrize("what", sorted(REFUSED))
async def test_a_declared_difference_is_refused_by_name(
    shared_harness: Harness, shared_box: Sandbox, what: str
) -> None:
    if shared_harness.kind != "cloud" or shared_harness.has(what):
        pytest.skip(f"the {shared_harness.kind} backend has it, or is a fake")
    handle = await Sandbox.get("shared", backend=shared_harness.backend)
    for call in REFUSED[what]:
        with pytest.raises(UnsupportedError) as caught:
            await call(shared_box, handle)
        assert caught.value.operation and caught.value.hint
    assert (await shared_box.exec("true")).exit_code == 0


async def test_a_configuration_of_the_service_is_no_configuration(shared_harness: Harness, shared_box: Sandbox) -> None:
    handle = await Sandbox.get("shared", backend=shared_harness.backend)
    if shared_harness.has("config"):
        assert handle.config()["name"] == "shared"
        return
    with pytest.raises(UnsupportedError, match="SandboxHandle::config on cloud"):
        handle.config()
    assert '"memory_mib":512' in handle.config_json


async def test_images_are_the_local_backends(shared_harness: Harness) -> None:
    if shared_harness.has("images"):
        assert isinstance(await Image.list(backend=shared_harness.backend), list)
        return
    with pytest.raises(UnsupportedError):
        await Image.list(backend=shared_harness.backend)


async def test_a_demand_for_isolation_is_kept_or_refused(harness: Harness) -> None:
    if harness.has("isolation"):
        pytest.skip("this backend has drivers to choose from; tests of its own hold them")
    with pytest.raises((UnsupportedError, IsolationUnavailableError)):
        await harness.create("box", isolation="microvm")


def test_the_documents_show_the_table() -> None:
    text = (REPOSITORY / "docs" / "backends.md").read_text()
    for backend, rows in DIFFERENCES.items():
        for what, reason in rows.items():
            assert f"| {backend} | {what} | {reason} |" in text


def test_every_difference_has_its_reason() -> None:
    for rows in DIFFERENCES.values():
        assert all(len(reason.split()) >= 2 for reason in rows.values())
