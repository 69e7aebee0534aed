"""Timing, rows and their table."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the table. `ratio` is ours over the yardstick's, in the unit of the target."""

    what: str
    ours: str
    yardstick: str
    ratio: float | None
    target: str
    met: bool | None
    note: str = ""

    def verdict(self) -> str:
        return {True: "met", False: "missed", None: "no yardstick"}[self.met]


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"


def p50(samples: Iterable[float]) -> float:
    return statistics.median(samples)


def timed(function: Callable[[], object]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


async def timed_async(function: Callable[[], Awaitable[object]]) -> float:
    begin = time.perf_counter()
    await function()
    return time.perf_counter() - begin


def at_most(
    what: str,
    ours: float,
    name: str,
    yardstick: float | None,
    limit: float,
    show: Callable[[float], str],
    note: str = "",
) -> Row:
    """Less is better: ours must be at most `limit` times the yardstick's."""
    target = f"<= {limit:g}x {name}"
    if yardstick is None:
        return Row(what, show(ours), f"{name}: not measurable here", None, target, None, note)
    ratio = ours / yardstick
    return Row(what, show(ours), f"{name} {show(yardstick)}", ratio, target, ratio <= limit, note)


def at_least(
    what: str,
    ours: float,
    name: str,
    yardstick: float | None,
    limit: float,
    show: Callable[[float], str],
    note: str = "",
) -> Row:
    """More is better: ours must be at least `limit` times the yardstick's."""
    target = f">= {limit:g}x {name}"
    if yardstick is None:
        return Row(what, show(ours), f"{name}: not measurable here", None, target, None, note)
    ratio = ours / yardstick
    return Row(what, show(ours), f"{name} {show(yardstick)}", ratio, target, ratio >= limit, note)


def table(rows: Iterable[Row]) -> str:
    lines = ["| what | ours | yardstick, same run | ratio | target | verdict |", "|---|---|---|---|---|---|"]
    notes = []
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        mark = ""
        if row.note:
            notes.append(row.note)
            mark = f" [{len(notes)}]"
        lines.append(f"| {row.what}{mark} | {row.ours} | {row.yardstick} | {ratio} | {row.target} | {row.verdict()} |")
    lines += [""] + [f"[{number}] {note}" for number, note in enumerate(notes, 1)]
    return "\n".join(lines)
