"""I: archives that `Image.save` writes, and the sources of images that are no registries."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from archives import Archive, directory, file, layer
from clients import said_by
from microsandbox import (
    Image,
    ImageArchiveFormat,
    ImageNotFoundError,
    InvalidConfigError,
    InvalidStateError,
    LocalBackend,
    MicrosandboxError,
)
from pace import within

pytestmark = pytest.mark.fresh_home

Make = Callable[..., Awaitable[Any]]
BASE = [directory("bin"), directory("etc"), directory("tmp", 0o1777), file("etc/os-release", b"NAME=test\n")]
FORMATS = list(ImageArchiveFormat)


async def stored(local: Any, path: Path, tag: str, content: bytes = b"1", **options: Any) -> Any:
    """An image of two layers in the store."""
    archive = Archive([layer(BASE), layer([file("etc/a", content)])], **options)
    await Image.load(archive.write(path), tag=tag, backend=local)
    return await Image.inspect(tag, backend=local)


def documents(path: Path) -> dict[str, Any]:
    """The JSON documents at the top of an archive; every blob has the digest of its name."""
    found = {}
    with tarfile.open(path) as archive:
        for member in archive:
            content = archive.extractfile(member)
            assert content is not None
            data = content.read()
            if member.name.startswith("blobs/"):
                assert hashlib.sha256(data).hexdigest() == member.name.rpartition("/")[2]
            else:
                found[member.name] = json.loads(data)
    return found


def run_tool(tool: str, *arguments: str | Path) -> str:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    done = subprocess.run([tool, *arguments], capture_output=True, text=True, timeout=within(60))
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("compress", [True, False], ids=["gzip", "plain"])
async def test_a_saved_image_has_the_digests_that_it_came_with(
    local: Any, make: Make, home: Path, tmp_path: Path, form: ImageArchiveFormat, compress: bool
) -> None:
    before = await stored(local, tmp_path / "a.tar", "kept:1", compress=compress)
    saved = tmp_path / "saved.tar"
    await Image.save("docker.io/library/kept:1", output_path=saved, format=form, backend=local)
    parts = documents(saved)
    assert parts["index.json"]["manifests"][0]["digest"] == before.handle.manifest_digest
    assert ("manifest.json" in parts) == (form is ImageArchiveFormat.DOCKER)
    # Into a home that has none of it.
    other = LocalBackend(home=home / "other")
    loaded = await Image.load(saved, backend=other)
    assert [(image.reference, image.manifest_digest) for image in loaded] == [
        ("kept:1" if form is ImageArchiveFormat.DOCKER else "docker.io/library/kept:1", before.handle.manifest_digest)
    ]
    after = await Image.inspect("kept:1", backend=other)
    assert [part.blob_digest for part in after.layers] == [part.blob_digest for part in before.layers]
    # The same again, byte by byte.
    again = tmp_path / "again.tar"
    await Image.save("kept:1", output_path=again, format=form, backend=local)
    assert again.read_bytes() == saved.read_bytes()


@pytest.mark.parametrize("form", FORMATS)
async def test_skopeo_reads_a_saved_archive_with_the_same_digests(
    local: Any, tmp_path: Path, form: ImageArchiveFormat
) -> None:
    image = await stored(local, tmp_path / "a.tar", "kept:1")
    saved = tmp_path / "saved.tar"
    await Image.save(["kept:1"], output_path=saved, format=form, backend=local)
    transport = f"{form.value}-archive"
    run_tool("skopeo", "copy", "--quiet", f"{transport}:{saved}", f"dir:{tmp_path / 'dir'}")
    manifest = json.loads((tmp_path / "dir" / "manifest.json").read_text())
    # In the Docker form, skopeo names each layer by its content.
    layers = [part.blob_digest if form is ImageArchiveFormat.OCI else part.diff_id for part in image.layers]
    found = [part["digest"] for part in manifest["layers"]]
    if form is ImageArchiveFormat.OCI:
        assert found == layers
    else:
        config = json.loads((tmp_path / "dir" / manifest["config"]["digest"].split(":")[1]).read_text())
        assert config["rootfs"]["diff_ids"] == layers
    assert manifest["config"]["digest"] == image.config.digest


async def test_umoci_unpacks_what_was_saved_for_it(local: Any, tmp_path: Path) -> None:
    await stored(local, tmp_path / "a.tar", "kept:1")
    await Image.save("kept:1", output_path=tmp_path / "s.tar", format=ImageArchiveFormat.OCI, backend=local)
    layout, bundle = tmp_path / "layout", tmp_path / "bundle"
    with tarfile.open(tmp_path / "s.tar") as archive:
        archive.extractall(layout, filter="data")
    run_tool("umoci", "unpack", "--rootless", "--image", f"{layout}:1", bundle)
    assert (bundle / "rootfs/etc/a").read_bytes() == b"1"


async def test_several_images_and_names_are_saved_in_one_archive(local: Any, home: Path, tmp_path: Path) -> None:
    one = await stored(local, tmp_path / "a.tar", "one:1")
    two = await stored(local, tmp_path / "b.tar", "two:1", b"2")
    await Image.load(tmp_path / "a.tar", tag="other.example/one:2", backend=local)
    names = ["one:1", "two:1", "other.example/one:2", "docker.io/library/one:1"]
    await Image.save(names, output_path=tmp_path / "s.tar", backend=local)
    other = LocalBackend(home=home / "other")
    await Image.load(tmp_path / "s.tar", backend=other)
    found = {image.reference: image.manifest_digest for image in await Image.list(backend=other)}
    digests = one.handle.manifest_digest, two.handle.manifest_digest
    assert found == {"one:1": digests[0], "two:1": digests[1], "other.example/one:2": digests[0]}


async def test_nothing_is_written_for_an_image_that_is_not_there(local: Any, tmp_path: Path) -> None:
    await stored(local, tmp_path / "a.tar", "kept:1")
    target = tmp_path / "saved.tar"
    target.write_text("before")
    with pytest.raises(ImageNotFoundError):
        await Image.save(["kept:1", "absent:1"], output_path=target, backend=local)
    with pytest.raises(ValueError, match="at least one image reference"):
        await Image.save([], output_path=target, backend=local)
    with pytest.raises(InvalidConfigError, match="is a directory"):
        await Image.save("kept:1", output_path=tmp_path, backend=local)
    assert target.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "saved.tar"]


async def test_an_image_without_its_blobs_says_how_to_save_it(local: Any, tmp_path: Path) -> None:
    await stored(local, tmp_path / "a.tar", "kept:1")
    report = await Image.prune(blobs=True, older_than_seconds=3600, backend=local)
    assert (report.blobs_removed, report.image_refs_removed) == (2, 0)
    with pytest.raises(InvalidStateError, match=r"images\.keep_blobs.*load the image again"):
        await Image.save("kept:1", output_path=tmp_path / "s.tar", backend=local)
    assert not (tmp_path / "s.tar").exists()
    await Image.load(tmp_path / "a.tar", tag="kept:1", backend=local)
    await Image.save("kept:1", output_path=tmp_path / "s.tar", backend=local)


async def test_no_blob_is_kept_where_the_configuration_says_so(home: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"images": {"keep_blobs": false}}')
    await stored(LocalBackend(home=home), tmp_path / "a.tar", "probe:1")
    code = f"""
import asyncio
from microsandbox import *
async def main():
    await Image.load({str(tmp_path / "a.tar")!r}, tag="kept:1")
    try:
        await Image.save("kept:1", output_path={str(tmp_path / "s.tar")!r})
    except InvalidStateError as error:
        print("images.keep_blobs" in str(error))
asyncio.run(main())
"""
    said = said_by("-c", code, MSB_CONFIG_PATH=str(config), MSB_HOME=str(home / "without"))
    assert said == "True\n"
    assert not (home / "without/cache/blobs").exists()


async def test_a_damaged_blob_is_found_when_it_is_saved(local: Any, home: Path, tmp_path: Path) -> None:
    image = await stored(local, tmp_path / "a.tar", "kept:1")
    blob = home / "cache/blobs/sha256" / image.layers[0].blob_digest.split(":")[1]
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    with pytest.raises(MicrosandboxError, match="is damaged"):
        await Image.save("kept:1", output_path=tmp_path / "s.tar", backend=local)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar"]


async def test_the_command_saves_to_standard_output(local: Any, home: Path, tmp_path: Path) -> None:
    image = await stored(local, tmp_path / "a.tar", "kept:1")
    environment = {**os.environ, "MSB_HOME": str(home)}
    command = [sys.executable, "-m", "microsandbox", "save", "kept:1", "--format", "oci"]
    done = subprocess.run(command, capture_output=True, env=environment, timeout=within(60))
    assert done.returncode == 0, done.stderr
    (tmp_path / "s.tar").write_bytes(done.stdout)
    assert documents(tmp_path / "s.tar")["index.json"]["manifests"][0]["digest"] == image.handle.manifest_digest
    done = subprocess.run([*command[:4], "absent:1", "-o", tmp_path / "no.tar"], capture_output=True, env=environment)
    assert done.returncode == 1 and b"absent:1" in done.stderr and not (tmp_path / "no.tar").exists()


async def test_an_image_layout_and_archives_are_sources_by_name(
    local: Any, make: Make, home: Path, tmp_path: Path
) -> None:
    one = await stored(local, tmp_path / "a.tar", "one:1")
    two = await stored(local, tmp_path / "b.tar", "two:2", b"2")
    await Image.save(["one:1", "two:2"], output_path=tmp_path / "s.tar", backend=local)
    layout = tmp_path / "layout"
    with tarfile.open(tmp_path / "s.tar") as archive:
        archive.extractall(layout, filter="data")
    digests = [one.handle.manifest_digest, two.handle.manifest_digest]
    for number, (source, wanted) in enumerate(
        [
            (f"oci:{layout}", digests),
            (f"oci:{layout}:2", digests[1:]),
            (f"docker-archive:{tmp_path / 's.tar'}:one:1", digests[:1]),
            (f"oci-archive:{tmp_path / 's.tar'}:2", digests[1:]),
        ]
    ):
        other = LocalBackend(home=home / f"other-{number}")
        assert [image.manifest_digest for image in await Image.load(source, backend=other)] == wanted
    with pytest.raises(ImageNotFoundError, match=r"absent:1 is not in it; it has .*one:1"):
        await Image.load(f"oci:{layout}:absent:1", backend=local)
    with pytest.raises(InvalidConfigError, match="oci:DIR"):
        await Image.load(layout, backend=local)
    await Image.remove("two:2", backend=local)
    box = await make(image=f"oci:{layout}:2")
    assert await box.fs.read("/etc/a") == b"2"


async def test_a_layout_cannot_lead_out_of_its_directory(local: Any, tmp_path: Path) -> None:
    await stored(local, tmp_path / "a.tar", "one:1")
    await Image.save("one:1", output_path=tmp_path / "s.tar", backend=local)
    layout = tmp_path / "layout"
    with tarfile.open(tmp_path / "s.tar") as archive:
        archive.extractall(layout, filter="data")
    for blob in (layout / "blobs/sha256").iterdir():
        outside = tmp_path / blob.name
        blob.rename(outside)
        blob.symlink_to(outside)
        with pytest.raises(MicrosandboxError):
            await Image.load(f"oci:{layout}", tag="out:1", backend=local)
        blob.unlink()
        outside.rename(blob)
    assert [image.reference for image in await Image.list(backend=local)] == ["one:1"]


@contextmanager
def daemon(path: Path, head: bytes, body: bytes) -> Iterator[list[bytes]]:
    """What answers each connection to the socket `path`; the requests."""
    requests: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    connection = listener.accept()[0]
                except OSError:
                    return
                with connection:
                    requests.append(connection.recv(4096))
                    connection.sendall(head + b"\r\n\r\n" + body)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield requests
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(within(10))


async def test_an_image_of_a_docker_daemon_is_loaded(
    local: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = await stored(local, tmp_path / "a.tar", "theirs:1")
    await Image.save("theirs:1", output_path=tmp_path / "s.tar", backend=local)
    await Image.remove("theirs:1", backend=local)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path / 'd.sock'}")
    with pytest.raises(MicrosandboxError, match=r"no Docker or Podman daemon answers.*DOCKER_HOST"):
        await Image.load("docker-daemon:theirs:1", backend=local)
    with daemon(tmp_path / "d.sock", b"HTTP/1.0 200 OK", (tmp_path / "s.tar").read_bytes()) as requests:
        loaded = await Image.load("docker-daemon:theirs:1", backend=local)
    assert requests[0].startswith(b"GET /v1.24/images/theirs:1/get HTTP/1.0\r\n")
    assert [(found.reference, found.manifest_digest) for found in loaded] == [
        ("theirs:1", image.handle.manifest_digest)
    ]


@pytest.mark.parametrize(
    ("head", "body", "error"),
    [
        (b"HTTP/1.0 404 Not Found", b"{}", ImageNotFoundError),
        (b"HTTP/1.0 500 No", b"broken", MicrosandboxError),
        (b"hello", b"", MicrosandboxError),
        (b"HTTP/1.0 200 OK", b"not a tar", MicrosandboxError),
        (b"A" * 100_000, b"", MicrosandboxError),
    ],
    ids=["absent", "broken", "no http", "no archive", "endless head"],
)
async def test_a_wrong_answer_of_a_daemon_is_an_error(
    local: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: bytes, body: bytes, error: type[Exception]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path / 'd.sock'}")
    with daemon(tmp_path / "d.sock", head, body), pytest.raises(error):
        await Image.load("docker-daemon:theirs:1", backend=local)
    assert await Image.list(backend=local) == []
