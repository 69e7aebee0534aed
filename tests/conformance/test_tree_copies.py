"""One tree with everything that a copy can lose, sent through every way in, out and across: all of them keep the same.

Inside and in archives everything is kept. What crosses to another machine belongs to the one who receives it, root inside or the
caller's user here, without set-id bits; here also without sticky bits and what the caller's umask takes away. A fifo goes nowhere but to another place inside. What is left out is named.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from backends import Harness
from microsandbox import FilesystemError, Patch, Sandbox, Volume
from pace import within
from servers import MSB
from trees import ARCHIVES, Described, describe, describe_inside, differences, make_tree, unpacked_by

pytestmark = [pytest.mark.needs("processes"), pytest.mark.heavy]

Tree = dict[str, Described]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "tree")


async def msb(harness: Harness, *words: str) -> str:
    """What the command reports."""
    environment = {**os.environ, "MSB_HOME": str(harness.home), "MSB_ISOLATION": harness.kind}
    if harness.server is not None:
        environment |= {"MSB_API_URL": harness.server.url, "MSB_API_KEY": harness.server.key}
        del environment["MSB_ISOLATION"]
    done = await asyncio.to_thread(
        subprocess.run, [MSB, *words], env=environment, capture_output=True, text=True, timeout=within(60)
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


async def put(box: Sandbox, tree: Path, path: str) -> Tree:
    """The tree inside at `path`, as an archive of GNU tar brings it."""
    async with await box.fs.write_tar("/tmp/put") as sink:
        await sink.write(ARCHIVES["gnu-posix-sparse-1.0"](tree.parent, tree.name))
    done = await box.shell(f"mv /tmp/put/{tree.name} {path} && touch -d @1500000000 {path}")
    assert done.success, done.stderr_text
    return await describe_inside(box, path)


def without_fifos(tree: Tree) -> Tree:
    return {name: entry for name, entry in tree.items() if entry.kind != "p"}


def received(tree: Tree, uid: int, gid: int, *, set_id: bool = False, umask: int | None = None) -> Tree:
    """The tree as one who receives it from another machine has it; with a umask, one here."""

    def one(entry: Described) -> Described:
        mode = int(entry.mode, 8) & (0o7777 if set_id else 0o1777 if entry.kind == "d" else 0o777)
        if umask is not None and entry.kind != "l":
            mode &= 0o777 & ~umask
        return dataclasses.replace(entry, uid=uid, gid=gid, mode=f"{mode:o}")

    return {name: one(entry) for name, entry in without_fifos(tree).items()}


@pytest.mark.needs("host_paths")
@pytest.mark.parametrize("way", ["msb copy", "patch"])
async def test_a_tree_of_this_machine_arrives_inside(harness: Harness, tree: Path, way: str) -> None:
    if way == "patch":
        # A patch with a fifo is refused.
        (tree / "fifo").unlink()
        os.utime(tree, ns=(0, 1_500_000_000 * 10**9))
    patches = [Patch.copy_dir(tree, "/srv/tree")] if way == "patch" else []
    box = await harness.create("box", patches=patches)
    if way == "msb copy":
        before = tree.stat()
        os.mknod(tree / "socket", 0o140600)
        os.utime(tree, ns=(0, before.st_mtime_ns))
        try:
            said = await msb(harness, "copy", str(tree), "box:/srv/tree")
        finally:
            (tree / "socket").unlink()
            os.utime(tree, ns=(0, before.st_mtime_ns))
        assert "skipped, a socket: socket" in said and "skipped, a fifo: fifo" in said
    wanted = received(describe(tree), 0, 0, set_id=way == "patch")
    assert differences(await describe_inside(box, "/srv/tree"), [wanted]) == []


@pytest.mark.parametrize("way", ["copy", "rename", "msb copy"])
async def test_a_tree_is_the_same_elsewhere_inside(
    shared_box: Sandbox, shared_harness: Harness, tree: Path, way: str
) -> None:
    box = shared_box
    # `rename` goes from one file system to another there.
    wanted = await put(box, tree, "/dev/shm/from" if way == "rename" else "/tmp/from")
    try:
        if way == "copy":
            await box.fs.copy("/tmp/from", "/tmp/to")
        elif way == "rename":
            await box.fs.rename("/dev/shm/from", "/tmp/to")
            assert not await box.fs.exists("/dev/shm/from")
        else:
            await msb(shared_harness, "copy", "shared:/tmp/from", "shared:/tmp/to")
        assert differences(await describe_inside(box, "/tmp/to"), [wanted]) == []
        left = await box.shell("find /tmp /dev/shm -name '.msb*'")
        assert left.stdout_text == ""
    finally:
        await box.shell("rm -rf /dev/shm/from")


@pytest.mark.parametrize("way", ["msb copy", "tar", "bsdtar"])
async def test_a_tree_of_a_sandbox_arrives_here(
    shared_box: Sandbox, shared_harness: Harness, tree: Path, tmp_path: Path, way: str
) -> None:
    inside = await put(shared_box, tree, "/tmp/from")
    if way == "msb copy":
        made = await shared_box.shell("python3 -c \"import os; os.mknod('/tmp/from/socket', 0o140600)\"")
        assert made.success, made.stderr_text
        old = os.umask(0o077)
        try:
            said = await msb(shared_harness, "copy", "shared:/tmp/from", str(tmp_path / "out"))
        finally:
            os.umask(old)
        assert "skipped, a fifo: fifo" in said and "skipped, a socket: socket" in said
        wanted = received(inside, os.geteuid(), os.getegid(), umask=0o077)
        out = describe(tmp_path / "out")
        # A name that was made inside changed the directory's time.
        out[""] = dataclasses.replace(out[""], mtime=wanted[""].mtime)
    else:
        archive = b"".join([chunk async for chunk in await shared_box.fs.read_tar("/tmp/from")])
        assert b"comment=left out: a fifo: fifo" in archive
        wanted, out = without_fifos(inside), describe(unpacked_by(way, archive, tmp_path / "out"))
        # The directory itself is no entry of the archive.
        del wanted[""], out[""]
    assert differences(out, [wanted], owners=way == "msb copy" or os.geteuid() == 0) == []


async def test_a_tree_goes_from_one_sandbox_to_another(harness: Harness, tree: Path) -> None:
    one, two = await harness.create("one"), await harness.create("two")
    wanted = await put(one, tree, "/tmp/from")
    assert "skipped, a fifo: fifo" in await msb(harness, "copy", "one:/tmp/from", "two:/tmp/to")
    assert differences(await describe_inside(two, "/tmp/to"), [without_fifos(wanted)]) == []


async def test_a_file_keeps_its_mode_and_time_both_ways(
    shared_box: Sandbox, shared_harness: Harness, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"content")
    source.chmod(0o666)
    os.utime(source, ns=(0, 1_600_000_000_123_456_789))
    await shared_box.fs.copy_from_host(source, "/tmp/by-call")
    await msb(shared_harness, "copy", str(source), "shared:/tmp/by-command")
    await shared_box.fs.copy("/tmp/by-call", "/tmp/copy")
    for name in ("by-call", "by-command", "copy"):
        inside = (await describe_inside(shared_box, "/tmp"))[name]
        assert (inside.mode, inside.mtime) == ("666", "1600000000.1234567890"), name
        modified = (await shared_box.fs.stat(f"/tmp/{name}")).modified
        assert modified is not None and abs(modified - 1_600_000_000_123.456789) < 0.01
    await shared_box.fs.chmod("/tmp/by-call", 0o6757)
    for umask, mode in ((0o022, 0o755), (0o077, 0o700), (0, 0o757)):
        old = os.umask(umask)
        try:
            await shared_box.fs.copy_to_host("/tmp/by-call", tmp_path / "by-call")
            await msb(shared_harness, "copy", "shared:/tmp/by-call", str(tmp_path / "by-command"))
        finally:
            os.umask(old)
        for name in ("by-call", "by-command"):
            out = (tmp_path / name).stat()
            assert (out.st_mode & 0o7777, out.st_mtime_ns) == (mode, 1_600_000_000_123_456_789), name


async def test_a_directory_that_exists_keeps_its_own_mode(
    shared_box: Sandbox, shared_harness: Harness, tmp_path: Path
) -> None:
    (tmp_path / "from").mkdir(mode=0o700)
    (tmp_path / "from/file").write_text("1")
    await shared_box.fs.mkdir("/tmp/into/from")
    await msb(shared_harness, "copy", str(tmp_path / "from"), "shared:/tmp/into")
    assert (await shared_box.fs.stat("/tmp/into/from")).mode & 0o7777 == 0o755
    (tmp_path / "into/from").mkdir(parents=True, mode=0o755)
    (tmp_path / "into/from").chmod(0o711)
    # One below it as well: the guest does not choose the modes of what this machine has.
    (tmp_path / "into/from/sub").mkdir(mode=0o700)
    await shared_box.fs.mkdir("/tmp/into/from/sub/new")
    await shared_box.fs.chmod("/tmp/into/from/sub", 0o777)
    await shared_box.fs.chmod("/tmp/into/from", 0o700)
    await msb(shared_harness, "copy", "shared:/tmp/into/from", str(tmp_path / "into"))
    assert (tmp_path / "into/from").stat().st_mode & 0o7777 == 0o711
    assert (tmp_path / "into/from/sub").stat().st_mode & 0o7777 == 0o700
    assert (tmp_path / "into/from/sub/new").is_dir()
    assert (tmp_path / "into/from/file").read_text() == "1"


@pytest.mark.hazard("F6")
async def test_a_copy_out_follows_no_planted_link(shared_box: Sandbox, shared_harness: Harness, tmp_path: Path) -> None:
    await shared_box.fs.mkdir("/tmp/data/sub")
    await shared_box.fs.write("/tmp/data/sub/key", b"of the guest")
    for planted in ("data/sub", "data"):
        out = tmp_path / planted.replace("/", "-")
        victim = tmp_path / f"victim-{out.name}"
        victim.mkdir()
        (out / planted).parent.mkdir(parents=True)
        (out / planted).symlink_to(victim)
        with pytest.raises(AssertionError, match="symbolic link"):
            await msb(shared_harness, "copy", "shared:/tmp/data", str(out))
        assert list(victim.iterdir()) == []


@pytest.mark.needs("host_paths")
async def test_a_bound_file_is_written_in_place(harness: Harness, tmp_path: Path) -> None:
    bound, new = tmp_path / "app.conf", tmp_path / "new"
    bound.write_bytes(b"first and longer\n")
    bound.chmod(0o644)
    inode = bound.stat().st_ino
    box = await harness.create("box", volumes={"/etc/app.conf": Volume.bind(bound)})

    async def check(data: bytes) -> None:
        assert bound.read_bytes() == data
        assert (bound.stat().st_ino, bound.stat().st_mode & 0o777) == (inode, 0o644)
        # An abandoned file is removed shortly after its client has gone.
        nothing_left = "while find /etc -name '.msb*' | grep -q .; do sleep 0.05; done"
        assert (await box.shell(f"cat /etc/app.conf; {nothing_left}", timeout=within(10))).stdout_bytes == data

    await box.fs.write("/etc/app.conf", b"second\n")
    await check(b"second\n")
    new.write_bytes(b"third\n" * 100_000)
    new.chmod(0o600)
    await box.fs.copy_from_host(new, "/etc/app.conf")
    await check(b"third\n" * 100_000)
    new.write_bytes(b"fourth\n")
    await msb(harness, "copy", str(new), "box:/etc/app.conf")
    await check(b"fourth\n")
    await box.fs.write("/tmp/other", b"fifth\n")
    await box.fs.copy("/tmp/other", "/etc/app.conf")
    await check(b"fifth\n")
    (tmp_path / "tar").mkdir()
    shutil.copy(new, tmp_path / "tar/app.conf")
    async with await box.fs.write_tar("/etc") as sink:
        await sink.write(ARCHIVES["gnu-gnu"](tmp_path / "tar", "app.conf"))
    await check(b"fourth\n")
    # What was begun and given up leaves the file as it was.
    with pytest.raises(RuntimeError, match="mine"):
        async with await box.fs.write_stream("/etc/app.conf") as stream:
            await stream.write(b"half")
            raise RuntimeError("mine")
    await check(b"fourth\n")


@pytest.mark.needs("host_paths")
async def test_a_file_in_a_closed_directory_is_written(harness: Harness, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "app.conf").write_text("old and longer")
    volumes = {
        "/srv": Volume.bind(tmp_path / "closed", readonly=True),
        "/srv/app.conf": Volume.bind(tmp_path / "app.conf"),
    }
    (tmp_path / "closed/app.conf").write_text("below")
    box = await harness.create("box", volumes=volumes)
    await box.fs.write("/srv/app.conf", b"new")
    assert (tmp_path / "app.conf").read_text() == "new"
    with pytest.raises(FilesystemError) as caught:
        await box.fs.write("/srv/other", b"new")
    assert caught.value.kind == "ReadOnly"


@pytest.mark.needs("host_paths")
async def test_a_file_copied_onto_itself_stays_as_it_is(harness: Harness, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed/app.conf").write_text("below")
    content = os.urandom(3 << 20)
    (tmp_path / "app.conf").write_bytes(content)
    # One file by three paths; a new name is possible beside one of them.
    volumes = {
        "/srv": Volume.bind(tmp_path / "closed", readonly=True),
        "/srv/app.conf": Volume.bind(tmp_path / "app.conf"),
        "/etc/app.conf": Volume.bind(tmp_path / "app.conf"),
        "/mnt/all": Volume.bind(tmp_path),
    }
    box = await harness.create("box", volumes=volumes)
    paths = ("/srv/app.conf", "/etc/app.conf", "/mnt/all/app.conf")
    pairs = [(source, target) for source in paths[:2] for target in paths[:2]]
    for source, target in [*pairs, (paths[0], paths[2])]:
        await box.fs.copy(source, target)
        assert (tmp_path / "app.conf").read_bytes() == content, (source, target)
        assert await box.fs.read(source) == content, (source, target)


@pytest.mark.needs("host_paths")
async def test_a_file_in_place_is_cut_once_all_has_come(harness: Harness, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed/app.conf").write_text("below")
    bound, old = tmp_path / "app.conf", b"old\n" * (1 << 20)
    bound.write_bytes(old)
    volumes = {"/srv": Volume.bind(tmp_path / "closed", readonly=True), "/srv/app.conf": Volume.bind(bound)}
    box = await harness.create("box", volumes=volumes)
    with pytest.raises(RuntimeError, match="mine"):
        async with await box.fs.write_stream("/srv/app.conf"):
            raise RuntimeError("mine")
    assert bound.read_bytes() == old

    async def first_piece_is_there() -> None:
        while bound.read_bytes()[:1] != b"n":
            await asyncio.sleep(0.01)

    async with await box.fs.write_stream("/srv/app.conf") as stream:
        await stream.write(b"new\n" * (1 << 19))
        await asyncio.wait_for(first_piece_is_there(), within(10))
        assert bound.stat().st_size == len(old)
    assert bound.read_bytes() == b"new\n" * (1 << 19)
    # Zeros are no holes over what was there.
    await box.fs.write("/srv/app.conf", bytes(100_000) + b"x")
    assert bound.read_bytes() == bytes(100_000) + b"x"
    await box.fs.write("/srv/app.conf", b"")
    assert bound.read_bytes() == b""


async def test_a_move_that_cannot_be_complete_changes_nothing(harness: Harness, tmp_path: Path) -> None:
    box = await harness.create("box")
    fs = box.fs
    await box.shell(
        "mkdir -p /dev/shm/d/sub /tmp/full /tmp/dir && echo 1 > /dev/shm/d/sub/f && echo 2 > /tmp/full/kept"
    )
    for target, code in (("/tmp/full", "ENOTEMPTY"), ("/tmp/full/kept", "ENOTDIR"), ("/tmp/none/d", "ENOENT")):
        with pytest.raises(FilesystemError) as caught:
            await fs.rename("/dev/shm/d", target)
        assert caught.value.kind == code, target
    await fs.rename("/dev/shm/d", "/tmp/dir")
    moved = await box.shell("cat /tmp/dir/sub/f /tmp/full/kept; find /tmp /dev/shm -name '.msb*'; ls /dev/shm")
    assert moved.stdout_text == "1\n2\n"
    # A file, and a link that leads nowhere.
    await box.shell("echo 3 > /dev/shm/file; ln -s /no/such /dev/shm/link")
    await fs.rename("/dev/shm/file", "/tmp/full/kept")
    await fs.rename("/dev/shm/link", "/tmp/link")
    assert await fs.read("/tmp/full/kept") == b"3\n" and await fs.readlink("/tmp/link") == "/no/such"
    assert await fs.list("/dev/shm") == []


async def test_a_move_of_a_file_in_use_loses_nothing(harness: Harness) -> None:
    box = await harness.create("box")
    await box.shell("mkdir /dev/shm/d /tmp/to && head -c 24M /dev/zero > /dev/shm/d/log && touch /tmp/goes-on")
    # It holds the file open: what it writes after a removal would be lost.
    writes = "exec 3>> /dev/shm/d/log; touch /tmp/begun; while [ -e /tmp/goes-on ]; do echo 1 >&3; done"
    writer = asyncio.create_task(box.shell(writes, timeout=within(30)))
    try:
        await box.shell("while [ ! -e /tmp/begun ]; do sleep 0.01; done", timeout=within(10))
        with pytest.raises(FilesystemError) as caught:
            await box.fs.rename("/dev/shm/d", "/tmp/to/d")
    finally:
        await box.shell("rm /tmp/goes-on")
        await writer
    assert caught.value.kind == "ESTALE" and "/dev/shm/d/log" in str(caught.value)
    assert (await box.fs.stat("/dev/shm/d/log")).size > 24 << 20
    assert (await box.shell("ls -A /tmp/to")).stdout_text == ""


@pytest.mark.needs("host_paths")
async def test_a_tree_with_a_mount_in_it_is_not_moved(harness: Harness, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("of the host")
    box = await harness.create("box", volumes={"/srv/d/mounted": Volume.bind(tmp_path)})
    await box.fs.write("/srv/d/file", b"1")
    with pytest.raises(FilesystemError) as caught:
        await box.fs.rename("/srv/d", "/dev/shm/d")
    assert caught.value.kind == "EBUSY"
    if harness.kind == "microvm":
        # The guest's kernel sees one file system: the move finds out at the end, as that of `mv`, and says where all of it is.
        assert "/dev/shm/d is complete" in str(caught.value)
        assert await box.fs.read("/dev/shm/d/mounted/kept") == b"of the host"
        return
    assert "mounted" in str(caught.value)
    assert await box.fs.read("/srv/d/file") == b"1"
    assert (tmp_path / "kept").read_text() == "of the host"
    assert await box.fs.list("/dev/shm") == []


async def test_an_archive_leads_nowhere_through_its_own_links(shared_box: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/out").symlink_to("/tmp/outside")
    first = ARCHIVES["python-gnu"](tmp_path, "a")
    (tmp_path / "a/out").unlink()
    (tmp_path / "a/out").mkdir()
    (tmp_path / "a/out/file").write_text("planted")
    second = ARCHIVES["gnu-gnu"](tmp_path, "a/out/file")
    await shared_box.fs.mkdir("/tmp/outside")
    with pytest.raises(FilesystemError) as caught:
        async with await shared_box.fs.write_tar("/tmp/in") as sink:
            # The first without the mark of its end.
            await sink.write(first.rstrip(b"\0") + bytes(-len(first.rstrip(b"\0")) % 512) + second)
    assert caught.value.kind == "PathEscapes"
    assert await shared_box.fs.list("/tmp/outside") == []


def test_the_comparison_sees_what_a_copy_can_lose(tree: Path, tmp_path: Path) -> None:
    whole = describe(tree)
    lossy: dict[str, Any] = {
        "mode": {"private": dataclasses.replace(whole["private"], mode="755")},
        "link": {"link": dataclasses.replace(whole["link"], kind="f")},
        "names": {"group/second-name": dataclasses.replace(whole["group/second-name"], names=frozenset())},
        "holes": {"holes": dataclasses.replace(whole["holes"], is_sparse=False)},
        "content": {"big": dataclasses.replace(whole["big"], content="0 0")},
        "time": {"tool": dataclasses.replace(whole["tool"], mtime="1600000000.0")},
    }
    for what, changed in lossy.items():
        assert differences(whole | changed, [whole]), what
    del whole["empty"]
    assert differences(whole, [describe(tree)])
    assert tmp_path.exists()
