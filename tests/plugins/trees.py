"""A tree with one of everything that a copy can lose, archives of it as tools make them, and a description to compare by.

The description is what `find` and `b2sum` report, so that it is the same on this machine and inside a sandbox.
"""

from __future__ import annotations

import io
import os
import shlex
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LONG = "l" * 120
DEEP = "/".join(c * 90 for c in "abcd")
#: Names are converted to the locale by some.
UTF8 = {**os.environ, "LC_ALL": "C.UTF-8"}
#: Ids from here on are mapped by no container; a virtual machine has all.
MAPPED = 65_536


def make_tree(top: Path) -> Path:
    """Directories, links, holes, odd names, modes, owners and times."""
    top.mkdir()
    for name, mode in {"empty": 0o700, "private": 0o700, "shared": 0o1777, "group": 0o750, "locked": 0o555}.items():
        (top / name).mkdir()
        (top / name).chmod(mode)
    (top / DEEP).mkdir(parents=True)
    files = {
        "plain": (b"content\n", 0o644),
        "none": (b"", 0o600),
        "private/key": (b"secret", 0o600),
        "tool": (b"#!/bin/sh\n", 0o755),
        "fixed": (b"read only", 0o444),
        "block": (b"x" * 512, 0o640),
        "two words\n": (b"odd", 0o644),
        "gr\u00fc\u00dfe": (b"utf-8", 0o644),
        os.fsdecode(b"latin-\xe9"): (b"not utf-8", 0o644),
        f"{LONG}-{LONG}": (b"long", 0o644),
        f"{DEEP}/file": (b"deep", 0o644),
        "locked/inside": (b"in", 0o644),
    }
    for name, (data, mode) in files.items():
        (top / name).write_bytes(data)
        (top / name).chmod(mode)
    (top / "big").write_bytes(os.urandom((1 << 20) + 17))
    for name, extents, size in (
        ("holes", [(1 << 20, b"middle"), (5 << 20, b"end" * 1000)], (5 << 20) + 3000),
        ("hole-at-the-end", [(0, b"begin")], 3 << 20),
        ("only-a-hole", [], 1 << 20),
        ("many-holes", [(n << 16, b"%d" % n) for n in range(1, 60)], 60 << 16),
    ):
        with (top / name).open("wb") as file:
            for at, data in extents:
                file.seek(at)
                file.write(data)
            file.truncate(size)
    os.link(top / "plain", top / "group/second-name")
    os.link(top / "many-holes", top / "group/second-holes")
    for name, target in {
        "link": "plain",
        "dangling": "no/such/file",
        "absolute": "/etc/passwd",
        "to-directory": "group",
        "far": f"{LONG}/{LONG}",
    }.items():
        (top / name).symlink_to(target)
    os.mkfifo(top / "fifo", 0o640)
    if os.geteuid() == 0:
        os.chown(top / "tool", 1000, 1001)
        os.chown(top / "private", 1000, 1000)
        os.chown(top / "link", 5, 6, follow_symlinks=False)
        os.chown(top / "none", 3_000_000, 3_000_000)
        os.chown(top / "group/second-name", 1, 2)
        (top / "tool").chmod(0o4755)
    for name, seconds in {"plain": 10**9, "private": 1_234_567_890, "fixed": -86_400 * 365, "block": 2**33 + 5}.items():
        os.utime(top / name, ns=(0, seconds * 10**9))
    os.utime(top / "tool", ns=(0, 1_600_000_000_123_456_789))
    os.utime(top / "link", ns=(0, 10**18), follow_symlinks=False)
    os.utime(top, ns=(0, 1_500_000_000 * 10**9))
    return top


#: Run in the directory: one line for each entry, NUL at its end, and one for the content of each file. Not by cksum, which
#: ends with an illegal instruction in an emulated virtual machine.
DESCRIBE = (
    r"find . -printf '%P\t%y\t%m\t%U\t%G\t%T@\t%l\t%n\t%i\t%s\t%b\0';"
    r" printf '\n\0'; find . -type f -print0 | xargs -0 -n 1 sh -c"
    r""" 'printf "%s\t%s\0" "$1" "$(b2sum -l 64 < "$1")"' _"""
)


@dataclass(frozen=True)
class Described:
    """One entry."""

    kind: str
    mode: str
    uid: int
    gid: int
    mtime: str
    link: str
    #: All names of the file, if it has several.
    names: frozenset[str]
    size: int
    is_sparse: bool
    content: str


def parse(text: bytes) -> dict[str, Described]:
    """What `DESCRIBE` printed, by name; the directory itself is ``."""
    entries, _, sums = text.partition(b"\n\0")
    contents = {}
    for line in filter(None, sums.split(b"\0")):
        name, _, total = os.fsdecode(line).rpartition("\t")
        contents[name.removeprefix("./")] = total
    lines = [os.fsdecode(line).split("\t") for line in filter(None, entries.split(b"\0"))]
    names: dict[str, set[str]] = {}
    for name, kind, *_, inode, _, _ in lines:
        if kind == "f":
            names.setdefault(inode, set()).add(name)
    found = {}
    for name, kind, mode, uid, gid, mtime, link, _, inode, size, blocks in lines:
        same = names.get(inode, set())
        is_file = kind == "f"
        found[name] = Described(
            kind=kind,
            mode=mode if kind != "l" else "777",
            uid=int(uid),
            gid=int(gid),
            mtime=mtime,
            link=link,
            names=frozenset(same) if len(same) > 1 else frozenset(),
            size=int(size) if is_file else 0,
            # Less than half is there.
            is_sparse=is_file and int(blocks) * 1024 < int(size),
            content=contents.get(name, ""),
        )
    return found


def describe(directory: Path) -> dict[str, Described]:
    out = subprocess.run(["sh", "-c", DESCRIBE], cwd=directory, check=True, stdout=subprocess.PIPE)
    return parse(out.stdout)


async def describe_inside(box: object, directory: str) -> dict[str, Described]:
    out = await box.shell(f"cd {shlex.quote(directory)} && {DESCRIBE}")  # type: ignore[attr-defined]
    assert out.success, out.stderr_bytes
    return parse(out.stdout_bytes)


# --- archives ---------------------------------------------------------------------------------------------------------

Maker = Callable[[Path, str], bytes]


def _tool(*words: str) -> Maker:
    def run(parent: Path, name: str) -> bytes:
        # A format that cannot hold an entry leaves it out and says so with its status.
        done = subprocess.run([*words, "-C", str(parent), "-cf", "-", name], capture_output=True, env=UTF8)
        assert done.returncode in (0, 1, 2) and done.stdout, done.stderr
        return done.stdout

    return run


def _python(form: int) -> Maker:
    def run(parent: Path, name: str) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form, errors="surrogateescape") as tar:
            for path in [parent / name, *sorted((parent / name).rglob("*"))]:
                try:
                    tar.add(path, path.relative_to(parent), recursive=False)
                except ValueError:
                    # This format cannot hold it.
                    continue
        return buffer.getvalue()

    return run


def _git(parent: Path, name: str) -> bytes:
    """`git archive` of a repository with what git keeps: names, content, links and the x bit."""
    with_git = parent / ".repository"
    shutil.rmtree(with_git, ignore_errors=True)
    (with_git / name).mkdir(parents=True)
    for entry in ("plain", "tool", "link", f"{LONG}-{LONG}", "gr\u00fc\u00dfe"):
        source = parent / name / entry
        if source.is_symlink():
            (with_git / name / entry).symlink_to(os.readlink(source))
        else:
            shutil.copy(source, with_git / name / entry)
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    # A date that the header of ustar cannot hold: git writes it into a global header.
    dated = {**os.environ, "GIT_COMMITTER_DATE": f"@{2**33 + 99} +0000", "GIT_AUTHOR_DATE": "@1000000000 +0000"}
    git = ["git", "-C", str(with_git), *who]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *words], check=True, stdout=subprocess.DEVNULL, env=dated)
    data = subprocess.run([*git, "archive", "--format=tar", "HEAD"], check=True, stdout=subprocess.PIPE).stdout
    shutil.rmtree(with_git)
    return data


_GNU = ("tar", "--numeric-owner", "--warning=none")
_BSD = ("bsdtar", "--numeric-owner")

#: By name: every form that the tools of this machine make.
ARCHIVES: dict[str, Maker] = {
    "gnu-v7": _tool(*_GNU, "--format=v7"),
    "gnu-ustar": _tool(*_GNU, "--format=ustar"),
    "gnu-oldgnu": _tool(*_GNU, "--format=oldgnu"),
    "gnu-gnu": _tool(*_GNU, "--format=gnu"),
    "gnu-posix": _tool(*_GNU, "--format=posix"),
    "gnu-oldgnu-sparse": _tool(*_GNU, "--format=oldgnu", "--sparse"),
    "gnu-gnu-sparse": _tool(*_GNU, "--format=gnu", "--sparse"),
    "gnu-posix-sparse-0.0": _tool(*_GNU, "--format=posix", "--sparse-version=0.0"),
    "gnu-posix-sparse-0.1": _tool(*_GNU, "--format=posix", "--sparse-version=0.1"),
    "gnu-posix-sparse-1.0": _tool(*_GNU, "--format=posix", "--sparse-version=1.0"),
    "gnu-raw-holes": _tool(*_GNU, "--format=posix", "--sparse", "--hole-detection=raw"),
    "gnu-label": _tool(*_GNU, "--format=gnu", "--label=a volume"),
    "gnu-posix-label": _tool(*_GNU, "--format=posix", "--label=a volume"),
    "gnu-incremental": _tool(*_GNU, "--format=gnu", "--listed-incremental=/dev/null"),
    "gnu-posix-xattrs": _tool(*_GNU, "--format=posix", "--xattrs", "--sparse"),
    "gnu-global-mtime": _tool(*_GNU, "--format=posix", "--pax-option=mtime=1234567890,delete=mtime"),
    "gnu-no-times": _tool(*_GNU, "--format=posix", "--pax-option=delete=atime,delete=ctime"),
    "bsd-v7": _tool(*_BSD, "--format=v7"),
    "bsd-ustar": _tool(*_BSD, "--format=ustar"),
    "bsd-gnutar": _tool(*_BSD, "--format=gnutar"),
    "bsd-paxr": _tool(*_BSD, "--format=paxr"),
    "bsd-pax": _tool(*_BSD, "--format=pax"),
    "bsd-pax-binary": _tool(*_BSD, "--format=pax", "--options=hdrcharset=BINARY"),
    "busybox": _tool("busybox", "tar"),
    "python-ustar": _python(tarfile.USTAR_FORMAT),
    "python-gnu": _python(tarfile.GNU_FORMAT),
    "python-pax": _python(tarfile.PAX_FORMAT),
    "git": _git,
}


def unpacked_by(tool: str, archive: bytes, target: Path) -> Path:
    """What GNU tar or bsdtar make of an archive."""
    target.mkdir()
    words = {
        "tar": ["tar", "--numeric-owner", "-p", "--warning=none", "-xf", "-"],
        "bsdtar": ["bsdtar", "--numeric-owner", "-p", "-xf", "-"],
    }[tool]
    done = subprocess.run([*words, "-C", str(target)], input=archive, capture_output=True, env=UTF8)
    # bsdtar warns of a name that is not in the locale, and makes it nevertheless.
    said = [line for line in done.stderr.splitlines() if b"can't be converted" not in line and b"delayed" not in line]
    assert done.returncode == 0 or not said, (tool, done.stderr)
    return target


def differences(
    ours: dict[str, Described], theirs: list[dict[str, Described]], *, owners: bool = True, mtimes: bool = True
) -> list[str]:
    """Where `ours` is like none of `theirs`, in words; an owner that no container maps may be root."""
    found = []
    for name in sorted(set(ours) | set().union(*theirs)):
        wanted = [their.get(name) for their in theirs]
        mine = ours.get(name)
        if mine is None or None in wanted:
            if mine is not None or any(wanted):
                found.append(f"{name[:40]!r}: ours {mine}, theirs {wanted}")
            continue
        for field in Described.__dataclass_fields__:
            if (field in ("uid", "gid") and not owners) or (field == "mtime" and not mtimes):
                continue
            values = [getattr(one, field) for one in wanted if one]
            if field in ("uid", "gid"):
                values += [0 for value in values if value >= MAPPED]
            value = getattr(mine, field)
            # Holes may be more than the tool made.
            if value not in values and not (field == "is_sparse" and value):
                found.append(f"{name[:40]!r}: {field} is {value!r}, theirs {values}")
    return found
