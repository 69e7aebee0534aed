"""Matching of guest paths against a pattern, a directory at a time."""

from __future__ import annotations

from fnmatch import fnmatchcase

from .errors import FilesystemError

#: Most memory of matches and of directories that are still to be searched (`fs.list_bytes`).
MAX_BYTES = 64 << 20
#: What a path costs besides its text.
_PATH_BYTES = 256

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


def weight(path: str) -> int:
    """What a path that is kept costs, in bytes."""
    return len(path) + _PATH_BYTES


def too_many(pattern: str) -> FilesystemError:
    """The error of a pattern whose matches take more than `MAX_BYTES`."""
    text = (
        f"its matches, with the directories still to be searched, take more than {MAX_BYTES} bytes of memory "
        "(fs.list_bytes); use a narrower pattern, or list_stream for each directory"
    )
    error = FilesystemError(f"glob {pattern}: {text}")
    error.operation, error.path, error.kind, error.message = "glob", pattern, "LimitExceeded", text
    return error
