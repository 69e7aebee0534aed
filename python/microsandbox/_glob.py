"""Matching of guest paths against a pattern, a directory at a time."""

from __future__ import annotations

from fnmatch import fnmatchcase

#: What is still to be matched below a directory: one tuple of name patterns for each way to go on.
Rests = frozenset[tuple[str, ...]]


def split(pattern: str) -> tuple[str, Rests]:
    """The directory that a pattern surely lies below, and what is to be matched there."""
    if not pattern.startswith("/"):
        raise ValueError(f"pattern must be absolute, not {pattern!r}")
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    plain = 0
    # The last part is matched, even a plain one, so that a missing file is no match.
    while plain < len(parts) - 1 and not any(sign in parts[plain] for sign in "*?["):
        plain += 1
    rest = tuple(parts[plain:])
    return "/" + "/".join(parts[:plain]), _ways(frozenset([rest] if rest else []))


def _ways(rests: Rests) -> Rests:
    """With what `**` allows: to stand for no directory at all, and, at the end, for everything."""
    all_ways = set(rests)
    todo = list(rests)
    while todo:
        rest = todo.pop()
        if rest[0] == "**":
            shorter = rest[1:] or ("*",)
            if shorter not in all_ways:
                all_ways.add(shorter)
                todo.append(shorter)
    return frozenset(all_ways)


def step(path: str, rests: Rests) -> tuple[bool, Rests]:
    """Whether `path` matches by its last name, and what is to be matched below it."""
    name = path.rpartition("/")[2]
    is_match, below = False, set()
    for rest in rests:
        if rest[0] == "**":
            if not name.startswith("."):
                below.add(rest)
        elif fnmatchcase(name, rest[0]) and (rest[0].startswith(".") or not name.startswith(".")):
            if len(rest) == 1:
                is_match = True
            else:
                below.add(rest[1:])
    return is_match, _ways(frozenset(below))
