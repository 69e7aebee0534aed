"""Guest files through `sandbox.fs`."""

from __future__ import annotations

import asyncio
import filecmp
import hashlib
import io
import os
import tarfile
import time
from pathlib import Path

import pytest
from microsandbox import FilesystemError, FsEntryKind, FsEventKind, IoError, PathNotFoundError, Sandbox


@pytest.mark.parametrize("size", [0, 1, 4095, 65536, 1 << 20, (5 << 20) + 17])
async def test_what_is_written_is_read(shared_box: Sandbox, size: int) -> None:
    data = os.urandom(size)
    await shared_box.fs.write("/tmp/data", data)
    assert await shared_box.fs.read("/tmp/data") == data
    assert (await shared_box.fs.stat("/tmp/data")).size == size


async def test_write_truncates(shared_box: Sandbox) -> None:
    await shared_box.fs.write("/tmp/f", b"a much longer text")
    await shared_box.fs.write("/tmp/f", b"short")
    assert await shared_box.fs.read("/tmp/f") == b"short"


async def test_text_is_utf8(shared_box: Sandbox) -> None:
    await shared_box.fs.write_text("/tmp/t", "Grüße ☃\n")
    assert await shared_box.fs.read_text("/tmp/t") == "Grüße ☃\n"
    await shared_box.fs.write("/tmp/t", b"\xff\xfe")
    with pytest.raises(UnicodeDecodeError):
        await shared_box.fs.read_text("/tmp/t")


async def test_a_missing_path_is_path_not_found(shared_box: Sandbox) -> None:
    for call in (
        lambda: shared_box.fs.read("/no/such/file"),
        lambda: shared_box.fs.stat("/no/such/file"),
        lambda: shared_box.fs.list("/no/such/dir"),
        lambda: shared_box.fs.remove("/no/such/file"),
        lambda: shared_box.fs.remove_dir("/no/such/dir"),
        lambda: shared_box.fs.rename("/no/such/a", "/tmp/b"),
        lambda: shared_box.fs.copy("/no/such/a", "/tmp/b"),
        lambda: shared_box.fs.write("/no/such/dir/file", b""),
    ):
        with pytest.raises(PathNotFoundError) as caught:
            await call()
        assert isinstance(caught.value, FileNotFoundError)
        assert isinstance(caught.value, FilesystemError)
        assert caught.value.code == "path-not-found"


async def test_exists_never_raises_for_absence(shared_box: Sandbox) -> None:
    assert await shared_box.fs.exists("/tmp") is True
    assert await shared_box.fs.exists("/no/such") is False
    assert await shared_box.fs.exists("/no/such/at/all") is False


async def test_stat_reports_kind_size_mode_and_times(shared_box: Sandbox) -> None:
    before = time.time() * 1000
    await shared_box.fs.write("/tmp/f", b"12345")
    meta = await shared_box.fs.stat("/tmp/f")
    assert meta.kind is FsEntryKind.FILE
    assert meta.size == 5
    assert meta.mode & 0o777 == 0o644
    assert meta.readonly is False
    assert meta.modified is not None and abs(meta.modified - before) < 60_000
    assert (await shared_box.fs.stat("/tmp")).kind is FsEntryKind.DIRECTORY


async def test_list_gives_one_level_with_full_paths(shared_box: Sandbox) -> None:
    await shared_box.fs.mkdir("/tmp/d/inner/deep")
    await shared_box.fs.write("/tmp/d/file", b"abc")
    entries = {entry.path: entry for entry in await shared_box.fs.list("/tmp/d")}
    assert sorted(entries) == ["/tmp/d/file", "/tmp/d/inner"]
    assert entries["/tmp/d/file"].kind is FsEntryKind.FILE
    assert entries["/tmp/d/file"].size == 3
    assert entries["/tmp/d/inner"].kind is FsEntryKind.DIRECTORY


async def test_a_streamed_listing_has_the_same_entries(shared_box: Sandbox) -> None:
    fs = shared_box.fs
    await fs.mkdir("/tmp/many/empty")
    for number in range(30):
        await fs.write(f"/tmp/many/{number}", b"x" * number)
    streamed = [(entry.path, entry.size) async for entry in await fs.list_stream("/tmp/many")]
    assert sorted(streamed) == [(entry.path, entry.size) for entry in await fs.list("/tmp/many")]
    assert [entry async for entry in await fs.list_stream("/tmp/many/empty")] == []
    for missing in ("/tmp/many/no", "/tmp/many/1"):
        with pytest.raises(FilesystemError):
            await fs.list_stream(missing)


async def test_a_read_is_limited_and_says_how_to_go_on(shared_box: Sandbox) -> None:
    fs = shared_box.fs
    await fs.write("/tmp/f", b"four")
    assert await fs.read("/tmp/f", max_bytes=4) == b"four"
    assert await fs.read_text("/tmp/f", max_bytes=4) == "four"
    assert await (await fs.read_stream("/tmp/f")).collect(max_bytes=4) == b"four"
    for call in (
        fs.read("/tmp/f", max_bytes=3),
        fs.read_text("/tmp/f", max_bytes=3),
        (await fs.read_stream("/tmp/f")).collect(max_bytes=3),
    ):
        with pytest.raises(FilesystemError, match=r"more than 3 bytes.*max_bytes=.*read_stream") as caught:
            await call
        assert caught.value.kind == "LimitExceeded"
    with pytest.raises(ValueError, match="max_bytes"):
        await fs.read("/tmp/f", max_bytes=-1)


@pytest.mark.needs("programs")
@pytest.mark.heavy
async def test_a_sparse_file_is_refused_unless_it_is_allowed(shared_box: Sandbox) -> None:
    await shared_box.shell("truncate -s 65M /tmp/sparse")
    with pytest.raises(FilesystemError, match="more than 67108864 bytes"):
        await shared_box.fs.read("/tmp/sparse")
    data = await shared_box.fs.read("/tmp/sparse", max_bytes=65 << 20)
    assert len(data) == 65 << 20 and data == bytes(65 << 20)


async def test_list_of_a_file_fails(shared_box: Sandbox) -> None:
    await shared_box.fs.write("/tmp/f", b"")
    with pytest.raises(FilesystemError):
        await shared_box.fs.list("/tmp/f")


async def test_mkdir_makes_parents_and_accepts_an_existing_directory(shared_box: Sandbox) -> None:
    await shared_box.fs.mkdir("/tmp/a/b/c")
    await shared_box.fs.mkdir("/tmp/a/b/c")
    assert (await shared_box.fs.stat("/tmp/a/b/c")).kind is FsEntryKind.DIRECTORY
    await shared_box.fs.write("/tmp/a/file", b"")
    with pytest.raises(FilesystemError):
        await shared_box.fs.mkdir("/tmp/a/file")


async def test_remove_takes_files_and_remove_dir_takes_trees(shared_box: Sandbox) -> None:
    await shared_box.fs.mkdir("/tmp/tree/sub")
    await shared_box.fs.write("/tmp/tree/sub/f", b"1")
    with pytest.raises(FilesystemError):
        await shared_box.fs.remove("/tmp/tree")
    await shared_box.fs.remove("/tmp/tree/sub/f")
    assert await shared_box.fs.list("/tmp/tree/sub") == []
    await shared_box.fs.write("/tmp/tree/sub/g", b"1")
    await shared_box.fs.remove_dir("/tmp/tree")
    assert await shared_box.fs.exists("/tmp/tree") is False


async def test_rename_and_copy_replace_an_existing_file(shared_box: Sandbox) -> None:
    await shared_box.fs.write("/tmp/a", b"new")
    await shared_box.fs.write("/tmp/b", b"old")
    await shared_box.fs.rename("/tmp/a", "/tmp/b")
    assert await shared_box.fs.read("/tmp/b") == b"new"
    assert await shared_box.fs.exists("/tmp/a") is False
    await shared_box.fs.write("/tmp/c", b"older and longer")
    await shared_box.fs.copy("/tmp/b", "/tmp/c")
    assert await shared_box.fs.read("/tmp/c") == b"new"
    assert await shared_box.fs.read("/tmp/b") == b"new"


async def test_read_stream_gives_non_empty_chunks(shared_box: Sandbox) -> None:
    data = os.urandom(3 << 20)
    await shared_box.fs.write("/tmp/big", data)
    chunks = [chunk async for chunk in await shared_box.fs.read_stream("/tmp/big")]
    assert all(chunks) and len(chunks) > 1
    assert b"".join(chunks) == data
    assert await (await shared_box.fs.read_stream("/tmp/big")).collect() == data


async def test_read_stream_of_an_empty_file_ends_immediately(shared_box: Sandbox) -> None:
    await shared_box.fs.write("/tmp/empty", b"")
    assert [chunk async for chunk in await shared_box.fs.read_stream("/tmp/empty")] == []


async def test_write_stream_is_complete_after_close(shared_box: Sandbox) -> None:
    digest = hashlib.sha256()
    async with await shared_box.fs.write_stream("/tmp/streamed") as sink:
        for _ in range(40):
            chunk = os.urandom(70_001)
            digest.update(chunk)
            await sink.write(chunk)
    assert hashlib.sha256(await shared_box.fs.read("/tmp/streamed")).digest() == digest.digest()


async def test_files_go_in_and_out_of_the_host(shared_box: Sandbox, tmp_path: Path) -> None:
    data = os.urandom(1_234_567)
    (tmp_path / "in").write_bytes(data)
    await shared_box.fs.copy_from_host(tmp_path / "in", "/tmp/inside")
    assert await shared_box.fs.read("/tmp/inside") == data
    await shared_box.fs.copy_to_host("/tmp/inside", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == data


async def test_host_side_failures_are_io_errors(shared_box: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(IoError) as caught:
        await shared_box.fs.copy_from_host(tmp_path / "absent", "/tmp/x")
    assert isinstance(caught.value, OSError)
    await shared_box.fs.write("/tmp/x", b"1")
    with pytest.raises(IoError):
        await shared_box.fs.copy_to_host("/tmp/x", tmp_path / "no" / "such" / "dir")


@pytest.mark.hazard("F1")
@pytest.mark.parametrize("path", ["", "relative", "a/b"])
async def test_paths_that_are_not_absolute_are_refused(shared_box: Sandbox, path: str) -> None:
    with pytest.raises(FilesystemError) as caught:
        await shared_box.fs.read(path)
    assert caught.value.kind == "InvalidPath"


@pytest.mark.hazard("F1")
async def test_nul_in_a_path_is_refused(shared_box: Sandbox) -> None:
    with pytest.raises((FilesystemError, ValueError)):
        await shared_box.fs.read("/tmp/a\0b")


async def test_names_need_not_be_ascii(shared_box: Sandbox) -> None:
    await shared_box.fs.write("/tmp/ünïcödé ☃ name", b"x")
    assert "/tmp/ünïcödé ☃ name" in [e.path for e in await shared_box.fs.list("/tmp")]


async def test_many_concurrent_calls(shared_box: Sandbox) -> None:
    import asyncio

    async def one(number: int) -> None:
        data = os.urandom(10_000 + number)
        await shared_box.fs.write(f"/tmp/n{number}", data)
        assert await shared_box.fs.read(f"/tmp/n{number}") == data

    await asyncio.gather(*(one(n) for n in range(40)))


async def test_chmod_utime_and_truncate_change_what_stat_says(shared_box: Sandbox) -> None:
    fs = shared_box.fs
    await fs.write("/tmp/f", b"12345")
    await fs.chmod("/tmp/f", 0o1750)
    await fs.utime("/tmp/f", modified=1_000_000_000_000)
    await fs.truncate("/tmp/f", 3)
    meta = await fs.stat("/tmp/f")
    assert (meta.mode & 0o7777, meta.size) == (0o1750, 3)
    await fs.utime("/tmp/f", modified=1_000_000_000_999)
    assert (await fs.stat("/tmp/f")).modified == 1_000_000_000_000
    await fs.truncate("/tmp/f", 5)
    assert await fs.read("/tmp/f") == b"123\0\0"


async def test_attributes_of_what_is_missing_or_out_of_range(shared_box: Sandbox) -> None:
    with pytest.raises(PathNotFoundError):
        await shared_box.fs.chmod("/no/such", 0o600)
    with pytest.raises(ValueError, match="mode must be 0 to 4095"):
        await shared_box.fs.chmod("/tmp", 0o10000)
    with pytest.raises(TypeError, match="mode must be int, not bool"):
        await shared_box.fs.chmod("/tmp", True)
    with pytest.raises(ValueError, match="uid must be 0 to 4294967294"):
        await shared_box.fs.chown("/tmp", -1)
    with pytest.raises(FilesystemError):
        await shared_box.fs.truncate("/tmp", 0)


@pytest.mark.needs("processes")
async def test_chown_sets_owner_and_group_apart(shared_box: Sandbox) -> None:
    await shared_box.fs.write("/tmp/f", b"")
    await shared_box.fs.chown("/tmp/f", 1, 2)
    meta = await shared_box.fs.stat("/tmp/f")
    assert (meta.uid, meta.gid) == (1, 2)
    await shared_box.fs.chown("/tmp/f", gid=3)
    meta = await shared_box.fs.stat("/tmp/f")
    assert (meta.uid, meta.gid) == (1, 3)
    assert (await shared_box.exec("stat", ["-c", "%u:%g", "/tmp/f"])).stdout_text == "1:3\n"


@pytest.mark.needs("processes")
async def test_links_are_made_read_and_resolved(shared_box: Sandbox) -> None:
    fs = shared_box.fs
    await fs.mkdir("/tmp/d")
    await fs.write("/tmp/d/file", b"x")
    await fs.symlink("d/file", "/tmp/link")
    await fs.symlink("nowhere", "/tmp/dangling")
    assert await fs.readlink("/tmp/link") == "d/file"
    assert await fs.readlink("/tmp/dangling") == "nowhere"
    assert await fs.realpath("/tmp/d/../link") == "/tmp/d/file"
    assert (await fs.stat("/tmp/link")).kind is FsEntryKind.FILE
    assert (await fs.stat("/tmp/link", follow_symlinks=False)).kind is FsEntryKind.SYMLINK
    with pytest.raises(FilesystemError):
        await fs.readlink("/tmp/d/file")
    with pytest.raises(FilesystemError):
        await fs.symlink("d", "/tmp/link")


async def test_realpath_is_absolute_and_plain(shared_box: Sandbox) -> None:
    await shared_box.fs.mkdir("/tmp/a/b")
    assert await shared_box.fs.realpath("/tmp/./a/b/..//b") == "/tmp/a/b"
    with pytest.raises(PathNotFoundError):
        await shared_box.fs.realpath("/tmp/none")


async def test_glob_matches_names_and_depths(shared_box: Sandbox) -> None:
    fs = shared_box.fs
    await fs.mkdir("/tmp/g/a/deep")
    await fs.mkdir("/tmp/g/.hidden")
    for path in ("x.py", "y.txt", "a/z.py", "a/deep/w.py", ".hidden/h.py", ".dot.py"):
        await fs.write(f"/tmp/g/{path}", b"")

    async def found(pattern: str) -> list[str]:
        return [entry.path.removeprefix("/tmp/g/") for entry in await fs.glob(pattern)]

    assert await found("/tmp/g/*.py") == ["x.py"]
    assert await found("/tmp/g/**/*.py") == ["a/deep/w.py", "a/z.py", "x.py"]
    assert await found("/tmp/g/*/z.py") == ["a/z.py"]
    assert await found("/tmp/g/[xy].*") == ["x.py", "y.txt"]
    assert await found("/tmp/g/**") == ["a", "a/deep", "a/deep/w.py", "a/z.py", "x.py", "y.txt"]
    assert await found("/tmp/g/.*/*.py") == [".hidden/h.py"]
    assert await found("/tmp/g/x.py") == ["x.py"]
    assert await found("/tmp/g/none/*") == []
    with pytest.raises(ValueError, match="pattern must be absolute"):
        await fs.glob("*.py")


@pytest.mark.needs("processes")
async def test_a_directory_goes_out_and_in_as_a_tar_archive(shared_box: Sandbox, tmp_path: Path) -> None:
    fs = shared_box.fs
    long = "n" * 120
    await shared_box.shell(
        f"mkdir -p /tmp/t/sub/{long} && cd /tmp/t && printf one > a && head -c 1500000 /dev/urandom > sub/big"
        f" && ln -s ../a sub/link && printf deep > sub/{long}/{long} && chown 1:2 a && chmod 6750 a"
        " && touch -d @1000000000 a sub && mkfifo pipe && mkdir empty && chmod 700 empty"
    )
    archive = tmp_path / "t.tar"
    with archive.open("wb") as file:
        async for chunk in await fs.read_tar("/tmp/t"):
            file.write(chunk)
    with tarfile.open(archive) as tar:
        members = {member.name: member for member in tar}
        assert sorted(members) == ["a", "empty", "sub", "sub/big", "sub/link", f"sub/{long}", f"sub/{long}/{long}"]
        assert (members["a"].mode, members["a"].uid, members["a"].gid, members["a"].mtime) == (0o6750, 1, 2, 10**9)
        assert members["sub/link"].linkname == "../a"
    async with await fs.write_tar("/tmp/new/place") as sink:
        data = archive.read_bytes()
        for at in range(0, len(data), 700_001):
            await sink.write(data[at : at + 700_001])
    same = "cd {} && find . ! -name pipe -printf '%p %y %m %U %G %l\\n' | sort; find . -type f | sort | xargs cksum"
    first, second = [await shared_box.shell(same.format(path)) for path in ("/tmp/t", "/tmp/new/place")]
    assert first.stdout_text == second.stdout_text != ""
    assert (await fs.stat("/tmp/new/place/sub")).modified == 10**12


def archive_of(*members: tuple[str, bytes, dict[str, object]]) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        for name, data, fields in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for field, value in fields.items():
                setattr(info, field, value)
            tar.addfile(info, io.BytesIO(data))
    return whole.getvalue()


@pytest.mark.needs("processes")
async def test_an_archive_replaces_files_and_stays_in_its_directory(shared_box: Sandbox) -> None:
    fs = shared_box.fs
    await fs.mkdir("/tmp/in")
    await fs.symlink("/tmp/outside", "/tmp/in/link")
    await fs.write("/tmp/outside", b"kept")

    async def unpack(data: bytes) -> None:
        async with await fs.write_tar("/tmp/in") as sink:
            await sink.write(data)

    await unpack(
        archive_of(
            ("link", b"new", {}),
            ("/abs/file", b"below", {}),
            ("link2", b"", {"type": tarfile.LNKTYPE, "linkname": "link"}),
        )
    )
    assert await fs.read("/tmp/outside") == b"kept"
    assert await fs.read("/tmp/in/link") == b"new"
    assert await fs.read("/tmp/in/link2") == b"new"
    assert await fs.read("/tmp/in/abs/file") == b"below"
    for bad in (
        archive_of(("../escaped", b"x", {})),
        archive_of(("null", b"", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3})),
        archive_of(("h", b"", {"type": tarfile.LNKTYPE, "linkname": "../outside"})),
        archive_of(("cut", b"y" * 100_000, {}))[:50_000],
        b"no archive at all" * 100,
    ):
        with pytest.raises(FilesystemError):
            await unpack(bad)
    assert await fs.exists("/tmp/escaped") is False
    with pytest.raises(PathNotFoundError):
        await (await fs.read_tar("/tmp/none")).collect()
    with pytest.raises(FilesystemError):
        await (await fs.read_tar("/tmp/outside")).collect()


@pytest.mark.needs("processes")
async def test_an_archive_that_is_given_up_does_not_stop_the_next_call(shared_box: Sandbox) -> None:
    with pytest.raises(RuntimeError, match="mine"):
        async with await shared_box.fs.write_tar("/tmp/given") as sink:
            await sink.write(archive_of(("a", b"z" * 50_000, {}))[:20_000])
            raise RuntimeError("mine")
    async with await shared_box.fs.write_tar("/tmp/given") as sink:
        await sink.write(archive_of(("a", b"whole", {})))
    assert await shared_box.fs.read("/tmp/given/a") == b"whole"


@pytest.mark.needs("processes")
async def test_watch_reports_changes_in_a_directory(shared_box: Sandbox) -> None:
    fs = shared_box.fs
    await fs.mkdir("/tmp/w")
    async with await fs.watch("/tmp/w") as changes:
        await shared_box.shell(
            "cd /tmp/w && echo 1 > a && chmod 600 a && mv a b && rm b && mkdir d && echo 2 > d/inside && rmdir e 2>&1; mv d /tmp/gone"
        )
        seen = []
        async for change in changes:
            seen.append((change.kind, change.path, change.moved_from, change.is_dir))
            if change.kind is FsEventKind.DELETED and change.path == "/tmp/w/d":
                break
    assert seen == [
        (FsEventKind.CREATED, "/tmp/w/a", None, False),
        (FsEventKind.MODIFIED, "/tmp/w/a", None, False),
        (FsEventKind.ATTRIBUTES, "/tmp/w/a", None, False),
        (FsEventKind.MOVED, "/tmp/w/b", "/tmp/w/a", False),
        (FsEventKind.DELETED, "/tmp/w/b", None, False),
        (FsEventKind.CREATED, "/tmp/w/d", None, True),
        (FsEventKind.DELETED, "/tmp/w/d", None, True),
    ]


@pytest.mark.needs("processes")
async def test_a_recursive_watch_follows_new_and_moved_directories(shared_box: Sandbox) -> None:
    fs = shared_box.fs
    await fs.mkdir("/tmp/r/old/deep")
    async with await fs.watch("/tmp/r", recursive=True) as changes:
        await shared_box.shell(
            "cd /tmp/r && mkdir -p new/er && echo 1 > new/er/f && mv old moved && echo 2 > moved/deep/g && echo 3 > last"
        )
        paths = {}
        async for change in changes:
            paths.setdefault(change.path, change)
            if change.path == "/tmp/r/last":
                break
    assert {"/tmp/r/new", "/tmp/r/new/er", "/tmp/r/new/er/f", "/tmp/r/moved", "/tmp/r/moved/deep/g"} <= set(paths)
    assert paths["/tmp/r/moved"].moved_from == "/tmp/r/old"


@pytest.mark.needs("processes")
async def test_a_watch_ends_with_what_it_watches_or_when_it_is_closed(shared_box: Sandbox) -> None:
    fs = shared_box.fs
    await fs.write("/tmp/f", b"")
    changes = await fs.watch("/tmp/f")
    await fs.remove("/tmp/f")
    assert [change.kind async for change in changes][-1] is FsEventKind.DELETED
    waiting = await fs.watch("/tmp")
    task = asyncio.create_task(anext(waiting, None))
    await asyncio.sleep(0.05)
    await waiting.close()
    assert await asyncio.wait_for(task, 5) is None
    with pytest.raises(PathNotFoundError):
        await fs.watch("/tmp/none")


@pytest.mark.needs("processes")
async def test_a_watch_ends_with_its_sandbox(box: Sandbox) -> None:
    changes = await box.fs.watch("/tmp")
    task = asyncio.create_task(anext(changes, None))
    await box.stop()
    assert await asyncio.wait_for(task, 20) is None


async def test_copies_report_their_progress(shared_box: Sandbox, tmp_path: Path) -> None:
    source, size = tmp_path / "source", (5 << 20) + 3
    source.write_bytes(os.urandom(size))
    reported: list[tuple[int, int | None]] = []
    await shared_box.fs.copy_from_host(source, "/tmp/f", progress=lambda done, total: reported.append((done, total)))
    await asyncio.sleep(0)
    assert reported[-1] == (size, size) and reported == sorted(reported)
    reported.clear()
    await shared_box.fs.copy_to_host(
        "/tmp/f", tmp_path / "back", progress=lambda done, total: reported.append((done, total))
    )
    await asyncio.sleep(0)
    assert reported[-1] == (size, size) and reported == sorted(reported)
    assert (tmp_path / "back").read_bytes() == source.read_bytes()


@pytest.mark.needs("processes")
async def test_zeros_become_holes_on_both_sides(shared_box: Sandbox, tmp_path: Path) -> None:
    source, size = tmp_path / "sparse", 64 << 20
    with source.open("wb") as file:
        file.write(b"head")
        file.truncate(size)
        file.seek(size - (1 << 20))
        file.write(b"tail")
    await shared_box.fs.copy_from_host(source, "/tmp/sparse")
    assert (await shared_box.fs.stat("/tmp/sparse")).size == size
    said = await shared_box.exec("stat", ["-c", "%b", "/tmp/sparse"])
    assert int(said.stdout_text) * 512 < 1 << 20
    await shared_box.fs.copy_to_host("/tmp/sparse", tmp_path / "back")
    back = (tmp_path / "back").stat()
    assert (back.st_size, back.st_blocks * 512 < 1 << 20) == (size, True)
    assert filecmp.cmp(source, tmp_path / "back", shallow=False)


async def test_a_name_that_is_not_utf8_is_a_name(shared_box: Sandbox) -> None:
    fs = shared_box.fs
    top = os.fsdecode(b"/tmp/caf\xe9")
    await fs.mkdir(top)
    await fs.write(os.fsdecode(b"/tmp/caf\xe9/\xff\xfe"), b"one")
    # What the wire writes for the byte is a name of its own.
    await fs.write(top + "/\U0010feff", b"two")
    listed = {os.fsencode(entry.path): entry.size for entry in await fs.list(top)}
    assert listed == {b"/tmp/caf\xe9/\xff\xfe": 3, b"/tmp/caf\xe9/\xf4\x8f\xbb\xbf": 3}
    for path in listed:
        await fs.rename(os.fsdecode(path), os.fsdecode(path + b"\x80"))
    assert await fs.read(os.fsdecode(b"/tmp/caf\xe9/\xff\xfe\x80")) == b"one"
    assert len(await fs.glob(top + "/*\udc80")) == 2
    await fs.remove(os.fsdecode(b"/tmp/caf\xe9/\xff\xfe\x80"))
    with pytest.raises(PathNotFoundError, match=r"caf\\xe9/\\xff\\xfe\\x80") as caught:
        await fs.read(os.fsdecode(b"/tmp/caf\xe9/\xff\xfe\x80"))
    assert caught.value.path == os.fsdecode(b"/tmp/caf\xe9/\xff\xfe\x80")
    await fs.remove_dir(top)
    with pytest.raises(UnicodeEncodeError):
        # A surrogate that stands for no byte.
        await fs.read("/tmp/\ud800")


@pytest.mark.needs("processes")
async def test_programs_and_the_host_see_the_bytes_of_a_name(shared_box: Sandbox, tmp_path: Path) -> None:
    fs = shared_box.fs
    made = await shared_box.shell(r"d=$(printf '/tmp/n\351'); mkdir $d && printf hello > $d/$(printf 'f\377')")
    assert made.success
    path = os.fsdecode(b"/tmp/n\xe9/f\xff")
    assert [entry.path for entry in await fs.list(os.fsdecode(b"/tmp/n\xe9"))] == [path]
    await fs.copy_to_host(path, tmp_path / os.fsdecode(b"out\xff"))
    assert (tmp_path / os.fsdecode(b"out\xff")).read_bytes() == b"hello"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.GNU_FORMAT) as tar:
        tar.add(tmp_path / os.fsdecode(b"out\xff"), arcname=os.fsdecode(b"in\xff"))
    async with await fs.write_tar(os.fsdecode(b"/tmp/n\xe9")) as sink:
        await sink.write(archive.getvalue())
    await fs.symlink(os.fsdecode(b"in\xff"), os.fsdecode(b"/tmp/n\xe9/l\xff"))
    assert await fs.readlink(os.fsdecode(b"/tmp/n\xe9/l\xff")) == os.fsdecode(b"in\xff")
    assert await fs.realpath(os.fsdecode(b"/tmp/n\xe9/l\xff")) == os.fsdecode(b"/tmp/n\xe9/in\xff")
    watch = await fs.watch(os.fsdecode(b"/tmp/n\xe9"))
    async with watch:
        await fs.rename(os.fsdecode(b"/tmp/n\xe9/l\xff"), os.fsdecode(b"/tmp/n\xe9/m\xff"))
        event = await asyncio.wait_for(anext(watch), 20)
    assert (event.moved_from, event.path) == (os.fsdecode(b"/tmp/n\xe9/l\xff"), os.fsdecode(b"/tmp/n\xe9/m\xff"))
    seen = await shared_box.shell("ls -b /tmp/n*")
    assert seen.stdout_text.split() == [r"f\377", r"in\377", r"m\377"]
