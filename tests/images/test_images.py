"""I: image archives, honest and hostile, through `Image.load`."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from archives import Archive, Entry, directory, file, hardlink, layer, pax, raw, symlink
from microsandbox import (
    Image,
    ImageInUseError,
    ImageNotFoundError,
    ImagePullFailedError,
    MicrosandboxError,
    PullPolicy,
    Sandbox,
)

# Each with a layer cache of its own, which the tests look into.
pytestmark = pytest.mark.fresh_home

Make = Callable[..., Awaitable[Any]]
# Enough of a root for a sandbox to boot and be looked at through `fs`.
BASE = [directory("bin"), directory("etc"), directory("tmp", 0o1777), file("etc/os-release", b"NAME=test\n")]


async def load(local: Any, archive: Archive, path: Path, tag: str = "test:latest") -> list[Any]:
    return await Image.load(str(archive.write(path)), tag=tag, backend=local)


# What tests beside this one make in /tmp: homes, directories of users and packages, pytest's own.
NEIGHBOURS = ("msb", "h", "p", "u")


def outside(home: Path) -> set[str]:
    """What lies where a hostile layer would like to write."""
    places = [Path("/"), Path("/tmp"), home, home.parent]
    return {
        f"{place}/{name}"
        for place in places
        for name in os.listdir(place)
        if place == Path("/") or not name.startswith(NEIGHBOURS)
    }


def nothing_cached(home: Path) -> None:
    layers = home / "cache" / "layers"
    left = [p.name for p in layers.iterdir() if p.is_dir()] if layers.exists() else []
    assert not left, f"a partial layer stays: {left}"


async def test_an_image_is_loaded_listed_used_and_removed(local: Any, make: Make, home: Path, tmp_path: Path) -> None:
    archive = Archive(
        [layer(BASE), layer([file("etc/added", b"second layer")])],
        config={"Env": ["A=1"], "WorkingDir": "/tmp", "Cmd": ["x"]},
    )
    handles = await load(local, archive, tmp_path / "image.tar", tag="mine:v1")
    assert "mine:v1" in handles[0].reference
    assert handles[0].layer_count == 2
    assert [h.reference for h in await Image.list(backend=local)]
    detail = await Image.inspect("mine:v1", backend=local)
    assert detail.config.env == ["A=1"] and detail.config.cmd == ["x"] and detail.config.working_dir == "/tmp"
    assert len(detail.layers) == 2
    box = await make(image="mine:v1")
    assert await box.fs.read("/etc/added") == b"second layer"
    with pytest.raises(ImageInUseError):
        await Image.remove("mine:v1", backend=local)
    await box.kill()
    await Sandbox.remove("box", backend=local)
    await Image.remove("mine:v1", backend=local)
    with pytest.raises(ImageNotFoundError):
        await Image.get("mine:v1", backend=local)


async def test_the_missing_directory_of_an_image_is_made(local: Any, make: Make, tmp_path: Path) -> None:
    """K11: as runc does. One that the caller names is not: a mistyped path would otherwise exist."""
    archive = Archive([layer(BASE)], config={"WorkingDir": "/srv/app/inner"})
    await load(local, archive, tmp_path / "image.tar", tag="wd:1")
    box = await make(image="wd:1")
    made = await box.fs.stat("/srv/app/inner")
    assert (made.kind, made.mode & 0o7777) == ("directory", 0o755)
    other = await make("other", image="wd:1", workdir="/mistyped")
    assert not await other.fs.exists("/mistyped") and not await other.fs.exists("/srv/app")


async def test_inspect_describes_an_image_and_prune_removes_it(local: Any, make: Make, tmp_path: Path) -> None:
    config = {"StopSignal": "SIGINT", "Cmd": ["x"]}
    await load(
        local, Archive([layer(BASE), layer([file("etc/a", b"1")])], config=config), tmp_path / "a.tar", tag="used:1"
    )
    await load(local, Archive([layer(BASE), layer([file("etc/b", b"2")])]), tmp_path / "b.tar", tag="unused:1")
    detail = await Image.inspect("used:1", backend=local)
    assert detail.config is not None and detail.config.stop_signal == "SIGINT"
    assert [part.position for part in detail.layers] == [0, 1]
    for part in detail.layers:
        assert part.diff_id.startswith("sha256:") and part.blob_digest.startswith("sha256:")
        assert part.media_type is None or "layer" in part.media_type
        assert part.compressed_size_bytes is None or part.compressed_size_bytes > 0
        assert part.erofs_size_bytes is None or part.erofs_size_bytes > 0
    handle = await Image.get("used:1", backend=local)
    assert handle.size_bytes is None or handle.size_bytes > 0
    await make(image="used:1")
    used = (await Image.get("used:1", backend=local)).last_used_at
    assert used is None or used > 0
    report = await Image.prune(backend=local)
    assert (report.image_refs_removed, report.manifests_removed, report.skipped_in_use) == (1, 1, 1)
    # The lower layer is that of the image in use, too.
    assert report.layers_removed == 1
    assert (report.fsmeta_removed, report.vmdk_removed) == (0, 0)
    assert report.bytes_reclaimed is None or report.bytes_reclaimed > 0
    assert [image.reference for image in await Image.list(backend=local)] == [handle.reference]
    assert report.in_use == [("used:1", "box")] and report.removed == ["unused:1"]


async def test_equivalent_spellings_are_one_image(local: Any, tmp_path: Path) -> None:
    await load(local, Archive([layer(BASE)]), tmp_path / "image.tar", tag="thing")
    digests = {
        (await Image.get(name, backend=local)).manifest_digest
        for name in ("thing", "thing:latest", "docker.io/library/thing", "docker.io/library/thing:latest")
    }
    assert len(digests) == 1


async def test_a_missing_image_is_not_found_and_leaves_nothing(make: Make, local: Any, home: Path) -> None:
    with pytest.raises(MicrosandboxError) as caught:
        await make(image="no/such:image", pull_policy=PullPolicy.NEVER)
    assert isinstance(caught.value, ImageNotFoundError | NotImplementedError)
    assert (await Sandbox.list(backend=local)).sandboxes == []


HOSTILE: dict[str, list[Entry]] = {
    "I1 dot dot": [file("../../escaped")],
    "I1 dot dot inside": [directory("a"), file("a/../../escaped")],
    "I1 dot dot deep": [file("./../../../../../../../../escaped")],
    "I4 hard link above": [hardlink("x", "../../etc/passwd")],
    "I4 hard link to a later member": [hardlink("x", "later"), file("later")],
    "I4 hard link to nothing": [hardlink("x", "no/such")],
    "I8 whiteout without a name": [directory("d"), file("d/.wh.")],
    "I8 whiteout of dot": [directory("d"), file("d/.wh..")],
    "I8 whiteout of dot dot": [directory("d"), file("d/.wh...")],
}


@pytest.mark.hazard("I1", "I4", "I8")
@pytest.mark.parametrize("case", list(HOSTILE))
async def test_hostile_entries_are_refused_and_leave_nothing(local: Any, home: Path, tmp_path: Path, case: str) -> None:
    before = outside(home)
    with pytest.raises(ImagePullFailedError) as caught:
        await load(local, Archive([layer([*BASE, *HOSTILE[case]])]), tmp_path / "image.tar")
    assert caught.value.kind == "UnsafeEntry", caught.value
    assert outside(home) - before <= {f"{home}/{name}" for name in os.listdir(home)}
    nothing_cached(home)
    assert await Image.list(backend=local) == []


CLAMPED: dict[str, list[Entry]] = {
    "I1 absolute": [file("/escaped-absolute")],
    "I3 through a link to tmp": [symlink("d", "/tmp"), file("d/escaped-link")],
    "I3 through a relative link": [symlink("d", "../../../../tmp"), file("d/escaped-link")],
    "I3 through a hard link to a link": [symlink("l", "/tmp"), hardlink("h", "l"), file("h/escaped-link")],
    "I5 mode of a link": [symlink("d", "/etc"), Entry("d", kind=tarfile.DIRTYPE, mode=0o777)],
    "I4 hard link to an absolute path": [file("etc/passwd", b"inside"), hardlink("x", "/etc/passwd")],
}


@pytest.mark.hazard("I1", "I3", "I4", "I5")
@pytest.mark.parametrize("case", list(CLAMPED))
async def test_absolute_names_and_links_stay_inside_or_are_refused(
    local: Any, home: Path, tmp_path: Path, case: str
) -> None:
    before, etc = outside(home), os.stat("/etc")
    try:
        await load(local, Archive([layer([*BASE, *CLAMPED[case]])]), tmp_path / "image.tar")
    except ImagePullFailedError as error:
        assert error.kind == "UnsafeEntry", error
        nothing_cached(home)
    new = outside(home) - before
    assert not [path for path in new if "escaped" in path], new
    assert not Path("/tmp/escaped-link").exists() and not Path("/escaped-absolute").exists()
    assert os.stat("/etc").st_mode == etc.st_mode and os.stat("/etc").st_mtime == etc.st_mtime


@pytest.mark.hazard("I3")
async def test_a_link_of_one_layer_leads_no_file_of_the_next_out(local: Any, home: Path, tmp_path: Path) -> None:
    two = [layer([*BASE, symlink("d", "/tmp")]), layer([file("d/escaped-second")])]
    try:
        await load(local, Archive(two), tmp_path / "image.tar")
    except ImagePullFailedError as error:
        assert error.kind == "UnsafeEntry"
    assert not Path("/tmp/escaped-second").exists()


@pytest.mark.hazard("I2")
async def test_an_absolute_link_that_is_meant_works(local: Any, make: Make, tmp_path: Path) -> None:
    entries = [
        *BASE,
        directory("usr"),
        directory("usr/bin"),
        file("usr/bin/tool", b"#!tool", mode=0o755),
        symlink("bin", "/usr/bin"),
    ]
    await load(local, Archive([layer(entries)]), tmp_path / "image.tar")
    box = await make(image="test:latest")
    assert await box.fs.read("/bin/tool") == b"#!tool"


@pytest.mark.hazard("I6")
@pytest.mark.parametrize("name", ["dev", "proc", "sys", "etc", "tmp", "run"])
@pytest.mark.parametrize("kind", ["symlink", "file", "fifo"])
async def test_mount_points_shipped_as_something_else(
    local: Any, home: Path, tmp_path: Path, name: str, kind: str
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    entry = {"symlink": symlink(name, str(target)), "file": file(name), "fifo": Entry(name, kind=tarfile.FIFOTYPE)}[
        kind
    ]
    await load(local, Archive([layer([entry])]), tmp_path / "image.tar")
    try:
        box = await Sandbox.create("box", image="test:latest", backend=local)
    except MicrosandboxError as error:
        assert error.code in ("boot-start", "image-pull-failed", "invalid-config"), error
        page = await Sandbox.list(backend=local)
        for handle in page.sandboxes:
            await handle.remove()
    else:
        await box.destroy(force=True)
    assert list(target.iterdir()) == [], "a mount or a file landed outside"


@pytest.mark.hazard("I7")
async def test_setuid_bits_and_capabilities_are_inert(
    local: Any, make: Make, home: Path, tmp_path: Path, debian_archive: Path
) -> None:
    await Image.load(str(debian_archive), tag="debian:latest", backend=local)
    box = await make(image="debian:latest")
    output = await box.exec(
        "sh", ["-c", "ls -l $(command -v su mount passwd) | cut -c4 | sort -u; exec su root -c 'id -u'"], user="nobody"
    )
    assert "0" not in output.stdout_text.split()[1:], output.stdout_text


@pytest.mark.hazard("I8")
async def test_whiteouts_remove_and_opaque_directories_hide(local: Any, make: Make, tmp_path: Path) -> None:
    below = layer([*BASE, directory("a"), file("a/one"), file("a/two"), directory("b"), file("b/old"), file("gone")])
    above = layer(
        [file("a/.wh.one", b""), directory("b"), file("b/.wh..wh..opq", b""), file("b/new"), file(".wh.gone", b"")]
    )
    await load(local, Archive([below, above]), tmp_path / "image.tar")
    box = await make(image="test:latest")
    assert [e.path for e in await box.fs.list("/a")] == ["/a/two"]
    assert [e.path for e in await box.fs.list("/b")] == ["/b/new"]
    assert not await box.fs.exists("/gone")


AMBIGUOUS: dict[str, bytes] = {
    "I9 negative size": raw(b"x", size=b"\xff" * 12),
    "I9 NUL in a name": pax(path=b"a\0b") + raw(b"x"),
    "I9 two names": pax(path=b"one") + raw(b"././@LongLink", b"two\0", kind=b"L") + raw(b"x"),
    "I9 a directory with content": raw(b"d/", raw(b"hidden"), kind=b"5"),
}


@pytest.mark.hazard("I9")
@pytest.mark.parametrize("case", list(AMBIGUOUS))
async def test_what_two_readers_read_differently_is_refused(local: Any, home: Path, tmp_path: Path, case: str) -> None:
    forged = raw(b"before") + AMBIGUOUS[case] + bytes(1024)
    with pytest.raises(ImagePullFailedError) as caught:
        await load(local, Archive([layer(BASE), forged]), tmp_path / "image.tar")
    assert caught.value.kind in ("CorruptLayer", "UnsafeEntry"), caught.value
    assert await Image.list(backend=local) == []


AS_GNU_TAR: dict[str, bytes] = {
    "I9 size in the extended header only": pax(size=b"5") + raw(b"x", b"12345", size=0),
    "I9 sizes that differ": pax(size=b"5") + raw(b"x", b"12345", size=400),
    "I9 a path twice": raw(b"x", b"first") + raw(b"x", b"second"),
}


@pytest.mark.hazard("I9")
@pytest.mark.parametrize("case", list(AS_GNU_TAR))
async def test_what_is_taken_is_what_gnu_tar_sees(local: Any, make: Make, tmp_path: Path, case: str) -> None:
    forged = AS_GNU_TAR[case] + raw(b"after", b"still in step") + bytes(1024)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    subprocess.run(["tar", "-x", "-C", theirs], input=forged, check=True)
    await load(local, Archive([layer(BASE), forged]), tmp_path / "image.tar")
    box = await make(image="test:latest")
    for name in ("x", "after"):
        assert await box.fs.read(f"/{name}") == (theirs / name).read_bytes(), name


@pytest.mark.hazard("I8")
async def test_an_opaque_marker_after_its_siblings_keeps_them(local: Any, make: Make, tmp_path: Path) -> None:
    below = layer([*BASE, directory("b"), file("b/old")])
    above = layer([directory("b"), file("b/new"), file("b/.wh..wh..opq", b"")])
    await load(local, Archive([below, above]), tmp_path / "image.tar")
    box = await make(image="test:latest")
    assert [e.path for e in await box.fs.list("/b")] == ["/b/new"]


@pytest.mark.hazard("I8")
async def test_foreign_overlay_attributes_are_dropped(local: Any, make: Make, home: Path, tmp_path: Path) -> None:
    below = layer([*BASE, directory("b"), file("b/old")])
    pax = {
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.user.overlay.opaque": "y",
        "SCHILY.xattr.user.overlay.redirect": "/etc",
    }
    above = layer([Entry("b", kind=tarfile.DIRTYPE, mode=0o755, pax=pax)])
    await load(local, Archive([below, above]), tmp_path / "image.tar")
    box = await make(image="test:latest")
    assert [e.path for e in await box.fs.list("/b")] == ["/b/old"]


@pytest.mark.hazard("I8")
async def test_a_directory_removed_and_made_again_is_empty(local: Any, make: Make, tmp_path: Path) -> None:
    below = layer([*BASE, directory("b"), file("b/old")])
    await load(
        local,
        Archive([below, layer([file(".wh.b", b"")]), layer([directory("b"), file("b/new")])]),
        tmp_path / "image.tar",
    )
    box = await make(image="test:latest")
    assert [e.path for e in await box.fs.list("/b")] == ["/b/new"]


BOMBS: dict[str, Callable[[], list[bytes]]] = {
    "I10 ratio": lambda: [layer([*BASE, file("zeros", bytes(400 << 20))])],
    "I10 long pax": lambda: [layer([*BASE, file("x", pax={"comment": "c" * (2 << 20)})])],
    "I10 depth": lambda: [layer([*BASE, file("/".join(["d"] * 200))])],
}


@pytest.mark.hazard("I10")
@pytest.mark.parametrize("case", list(BOMBS))
async def test_bombs_name_the_limit(local: Any, home: Path, tmp_path: Path, case: str) -> None:
    with pytest.raises(ImagePullFailedError) as caught:
        await load(local, Archive(BOMBS[case]()), tmp_path / "image.tar")
    assert caught.value.kind == "LimitExceeded", caught.value
    assert "image." in str(caught.value), caught.value
    nothing_cached(home)


def change(where: str, **values: Any) -> Callable[[str, Any], Any]:
    def tamper(what: str, value: Any) -> Any:
        return {**value, **values} if what == where else value

    return tamper


def replace(where: str, new: Any) -> Callable[[str, Any], Any]:
    return lambda what, value: (new(value) if callable(new) else new) if what == where else value


LIES: dict[str, Callable[[str, Any], Any]] = {
    "I11 other bytes": replace("blob 0", lambda blob: blob[:-20] + bytes(20)),
    "I11 wrong diff id": replace("diff 0", "sha256:" + "0" * 64),
    "I11 wrong size": change("layer 0", size=17),
    "I11 short digest": change("layer 0", digest="sha256:abcd"),
    "I11 upper case": replace("layer 0", lambda d: {**d, "digest": d["digest"].upper()}),
    "I11 unknown algorithm": change("layer 0", digest="md5:" + "0" * 32),
    "I11 a path for a digest": change("layer 0", digest="sha256:../../../../etc/passwd"),
    "I12 no layers listed": replace("manifest", lambda m: {k: v for k, v in m.items() if k != "layers"}),
    "I12 wrong types": replace("manifest", lambda m: {**m, "layers": "many"}),
    "I12 no object": replace("manifest", b"[]"),
    "I12 deep": replace("manifest", b"[" * 100_000),
    "I12 large": replace("manifest", lambda m: json.dumps(m).encode() + b" " * (5 << 20)),
    "I12 many layers": replace("manifest", lambda m: {**m, "layers": m["layers"] * 10_000}),
    "I12 other media type": change("manifest", mediaType="application/vnd.oci.image.index.v1+json"),
}


@pytest.mark.hazard("I11", "I12")
@pytest.mark.parametrize("case", list(LIES))
async def test_lying_documents_are_refused(local: Any, home: Path, tmp_path: Path, case: str) -> None:
    with pytest.raises(ImagePullFailedError) as caught:
        await load(local, Archive([layer(BASE)], tamper=LIES[case]), tmp_path / "bad.tar")
    if case in ("I11 other bytes", "I11 wrong diff id"):
        assert caught.value.kind in ("DigestMismatch", "CorruptLayer"), caught.value
    nothing_cached(home)
    assert await Image.list(backend=local) == []
    # The same content told truthfully works afterwards.
    await load(local, Archive([layer(BASE)]), tmp_path / "good.tar")


async def test_what_is_no_archive_is_refused(local: Any, tmp_path: Path) -> None:
    for number, data in enumerate((b"", b"no archive", os.urandom(100_000), b"\x1f\x8b" + os.urandom(1000))):
        path = tmp_path / f"bad{number}"
        path.write_bytes(data)
        with pytest.raises(MicrosandboxError):
            await Image.load(str(path), backend=local)
    with pytest.raises((MicrosandboxError, FileNotFoundError)):
        await Image.load(str(tmp_path / "absent"), backend=local)


def tree(root: Path) -> dict[str, tuple[str, int, str]]:
    """Kind, permission bits and content or target of everything beneath `root`, mounts left out."""
    import hashlib

    found: dict[str, tuple[str, int, str]] = {}
    device = root.stat().st_dev
    for current, directories, files in os.walk(root):
        directories[:] = [name for name in directories if os.lstat(f"{current}/{name}").st_dev == device]
        for name in directories + files:
            path = Path(current, name)
            info = path.lstat()
            kind = stat.S_IFMT(info.st_mode)
            content = ""
            if stat.S_ISLNK(info.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(info.st_mode):
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            mode = 0 if stat.S_ISLNK(info.st_mode) else stat.S_IMODE(info.st_mode)
            found[str(path.relative_to(root))] = (oct(kind), mode, content)
    return found


AWKWARD = [
    layer([*BASE, directory("usr"), directory("usr/lib"), symlink("lib", "usr/lib"), file("lib/through-a-link", b"1")]),
    layer([directory("swap"), file("swap/a"), file("turns")]),
    layer([file("swap", b"now a file"), directory("turns"), file("turns/inside")]),
    layer([file("n" * 255, b"long"), file("/".join(["long" * 20] * 20), b"deep"), file("ünï☃", b"unicode")]),
    layer(
        [file("hard", b"linked"), hardlink("hard2", "hard"), symlink("loop", "loop"), symlink("dangling", "/no/where")]
    ),
    layer([file("setuid", b"s", mode=0o4755), file("closed", b"c", mode=0o000), directory("sticky", 0o1777)]),
]


@pytest.mark.hazard("I13")
@pytest.mark.root
async def test_awkward_layers_unpack_as_umoci_does(local: Any, home: Path, tmp_path: Path) -> None:
    if os.getuid() != 0 or not shutil.which("umoci"):
        pytest.skip("comparing with umoci needs root and umoci")
    archive = Archive(AWKWARD).write(tmp_path / "image.tar")
    (tmp_path / "layout").mkdir()
    subprocess.run(["tar", "-xf", archive, "-C", tmp_path / "layout"], check=True)
    subprocess.run(
        ["umoci", "unpack", "--image", f"{tmp_path}/layout:latest", tmp_path / "bundle"],
        check=True,
        capture_output=True,
    )
    theirs = tree(tmp_path / "bundle" / "rootfs")
    await Image.load(str(archive), tag="test:latest", backend=local)
    box = await Sandbox.create("box", image="test:latest", backend=local)
    try:
        from boxes import init_pid

        ours = tree(Path(f"/proc/{init_pid(home)}/root"))
    finally:
        await box.destroy(force=True)
    missing = {
        path: value
        for path, value in theirs.items()
        if ours.get(path) != value
        and path != "tmp"
        and not path.startswith(("etc/hosts", "etc/resolv", "etc/hostname"))
    }
    assert not missing, {path: (value, ours.get(path)) for path, value in missing.items()}


@pytest.mark.hazard("I13")
async def test_many_layers_boot(local: Any, make: Make, tmp_path: Path) -> None:
    layers = [layer(BASE)] + [layer([file(f"etc/n{n}", str(n).encode())]) for n in range(150)]
    await load(local, Archive(layers), tmp_path / "image.tar")
    box = await make(image="test:latest")
    assert await box.fs.read("/etc/n0") == b"0"
    assert await box.fs.read("/etc/n149") == b"149"


async def test_a_directory_root_is_never_modified(make: Make, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "bin").mkdir()
    (root / "etc" / "os-release").write_text("NAME=dir\n")
    (root / "keep").write_text("original")
    before = tree(root)
    box = await make(image=str(root))
    assert await box.fs.read("/keep") == b"original"
    await box.fs.write("/keep", b"changed inside")
    await box.fs.write("/new", b"1")
    await box.fs.remove("/etc/os-release")
    await box.stop()
    assert tree(root) == before
