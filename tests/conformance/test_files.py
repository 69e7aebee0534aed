"""Guest files through `sandbox.fs`."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest
from microsandbox import FilesystemError, FsEntryKind, IoError, PathNotFoundError, Sandbox


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


async def test_stat_tells_kind_size_mode_and_times(shared_box: Sandbox) -> None:
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


async def test_read_stream_of_an_empty_file_ends_at_once(shared_box: Sandbox) -> None:
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


@pytest.mark.parametrize("path", ["", "relative", "a/b"])
async def test_F1_paths_that_are_not_absolute_are_refused(shared_box: Sandbox, path: str) -> None:
    with pytest.raises(FilesystemError) as caught:
        await shared_box.fs.read(path)
    assert caught.value.kind == "InvalidPath"


async def test_F1_nul_in_a_path_is_refused(shared_box: Sandbox) -> None:
    with pytest.raises((FilesystemError, ValueError)):
        await shared_box.fs.read("/tmp/a\0b")


async def test_names_need_not_be_ascii(shared_box: Sandbox) -> None:
    await shared_box.fs.write("/tmp/ünïcödé ☃ name", b"x")
    assert "/tmp/ünïcödé ☃ name" in [e.path for e in await shared_box.fs.list("/tmp")]


async def test_many_calls_at_once(shared_box: Sandbox) -> None:
    import asyncio

    async def one(number: int) -> None:
        data = os.urandom(10_000 + number)
        await shared_box.fs.write(f"/tmp/n{number}", data)
        assert await shared_box.fs.read(f"/tmp/n{number}") == data

    await asyncio.gather(*(one(n) for n in range(40)))
