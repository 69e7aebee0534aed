"""Pages, labels and cursors."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from backends import Harness
from homes import new_home
from microsandbox import InvalidConfigError, Sandbox, SandboxStatus

NAMES = [f"box-{n}" for n in range(7)]


async def populate(harness: Harness) -> None:
    for number, name in enumerate(NAMES):
        labels = {"team": "red" if number % 2 else "blue", "tier": str(number // 3)}
        box = await harness.create(name, labels=labels, memory=128)
        await box.stop()


@pytest.fixture(scope="module")
def seven(backend_name: str, prepared: Path) -> Iterator[Harness]:
    """A backend with the sandboxes of `NAMES`, made in that order; `team` and `tier` are their labels."""
    home = new_home(prepared)
    harness = Harness.of(backend_name, home)
    asyncio.run(populate(harness))
    yield harness
    asyncio.run(harness.close())
    shutil.rmtree(home, ignore_errors=True)


@pytest.mark.fresh_home
async def test_an_empty_home_lists_nothing(harness: Harness) -> None:
    page = await Sandbox.list(backend=harness.backend)
    assert page.sandboxes == []
    assert page.next_cursor is None


async def test_newest_first(seven: Harness) -> None:
    page = await Sandbox.list(backend=seven.backend)
    assert [handle.name for handle in page.sandboxes] == NAMES[::-1]


async def test_pages_join_without_gap_or_repeat(seven: Harness) -> None:
    seen: list[str] = []
    cursor: str | None = None
    sizes = []
    while True:
        page = await Sandbox.list_with(cursor=cursor, limit=3, backend=seven.backend)
        sizes.append(len(page.sandboxes))
        seen += [handle.name for handle in page.sandboxes]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == NAMES[::-1]
    assert sizes == [3, 3, 1]


async def test_labels_must_all_match_and_filter_before_paging(seven: Harness) -> None:
    page = await Sandbox.list_with(labels={"team": "red"}, limit=2, backend=seven.backend)
    assert [h.name for h in page.sandboxes] == ["box-5", "box-3"]
    assert page.next_cursor is not None
    rest = await Sandbox.list_with(labels={"team": "red"}, limit=2, cursor=page.next_cursor, backend=seven.backend)
    assert [h.name for h in rest.sandboxes] == ["box-1"]
    both = await Sandbox.list_with(labels={"team": "red", "tier": "0"}, backend=seven.backend)
    assert [h.name for h in both.sandboxes] == ["box-1"]


@pytest.mark.parametrize("limit", [0, 101, -1])
async def test_a_bad_limit_is_refused(harness: Harness, limit: int) -> None:
    with pytest.raises(InvalidConfigError):
        await Sandbox.list_with(limit=limit, backend=harness.backend)


@pytest.mark.parametrize("cursor", ["", "nonsense", "AAAA", "-1", "\x00"])
async def test_a_bad_cursor_is_refused(harness: Harness, cursor: str) -> None:
    with pytest.raises(InvalidConfigError):
        await Sandbox.list_with(cursor=cursor, backend=harness.backend)


async def test_ended_sandboxes_stay_listed_with_their_state(harness: Harness) -> None:
    first = await harness.create("first")
    await harness.create("second")
    await first.stop()
    page = await Sandbox.list(backend=harness.backend)
    assert {h.name: h.status for h in page.sandboxes} == {
        "first": SandboxStatus.STOPPED,
        "second": SandboxStatus.RUNNING,
    }
