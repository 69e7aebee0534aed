"""Pulling from registries, as people do it: `Sandbox.create` with an image's name, `create_with_progress`, `msb pull` and `msb run`."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import random
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from archives import Archive, directory, file, layer
from microsandbox import (
    Image,
    ImageNotFoundError,
    MicrosandboxError,
    PullEventType,
    PullPolicy,
    RegistryAuth,
    Sandbox,
)
from pace import within
from registry import PASSWORD, USER, Answer, FakeRegistry, Registry, Request, Start
from servers import MSB, msb, on

pytestmark = pytest.mark.fresh_home

Make = Callable[..., Awaitable[Any]]
CANARY = "canary-9d1c7e"


@pytest.fixture(autouse=True)
def no_credentials_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither a keyring nor the files of Docker and Podman of whoever runs the tests."""
    for name in ("DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "user").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "user"))


async def test_an_image_is_pulled_by_create_and_used(make: Make, registry: Registry, busybox_archive: Path) -> None:
    reference = registry.push(busybox_archive, "tools/busybox:1")
    box = await make(image=reference)
    assert (await box.exec("cat", ["/etc/middle", "/etc/top"])).stdout_text == "middle\ntop\n"
    registry.forget()
    await make("second", image=reference)
    assert registry.requests() == [], "a cached image is asked for again"


async def test_unchanged_is_one_request_and_changed_is_pulled(
    local: Any, make: Make, registry: Registry, busybox_archive: Path, tmp_path: Path
) -> None:
    reference = registry.push(busybox_archive, "busybox:1")
    await make(image=reference)
    before = (await Image.get(reference, backend=local)).manifest_digest
    registry.forget()
    await make("again", image=reference, pull_policy=PullPolicy.ALWAYS)
    assert [status for _, _, status in registry.requests()] == [200]
    other = Archive([layer([directory("bin"), file("etc/other", b"other\n")])]).write(tmp_path / "other.tar")
    registry.push(other, "busybox:1")
    await make("newer", image=reference, pull_policy=PullPolicy.ALWAYS)
    assert (await Image.get(reference, backend=local)).manifest_digest != before


@pytest.mark.parametrize("policy", list(PullPolicy))
@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("online", [False, True])
async def test_policy_cache_and_network_decide(
    make: Make, fake_registry: FakeRegistry, busybox_archive: Path, policy: PullPolicy, cached: bool, online: bool
) -> None:
    reference = fake_registry.add(busybox_archive, "busybox", "1")
    if cached:
        await make("first", image=reference)
    fake_registry.log.clear()
    if not online:
        fake_registry.end()
    wanted = {
        PullPolicy.ALWAYS: online,
        PullPolicy.IF_MISSING: cached or online,
        PullPolicy.NEVER: cached,
    }[policy]
    if wanted:
        await make(image=reference, pull_policy=policy)
    else:
        with pytest.raises(MicrosandboxError) as caught:
            await make(image=reference, pull_policy=policy)
        assert reference in str(caught.value)
        assert isinstance(caught.value, ImageNotFoundError) == (policy is PullPolicy.NEVER)
    if policy is PullPolicy.NEVER or (policy is PullPolicy.IF_MISSING and cached):
        assert fake_registry.log == []


async def test_a_registry_with_a_password_takes_the_right_one(
    make: Make, start_registry: Start, busybox_archive: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for kind in ("basic", "token"):
        registry = start_registry(kind)
        reference = registry.push(busybox_archive, "private/busybox:1")
        for wrong in (None, RegistryAuth(USER, CANARY)):
            with pytest.raises(MicrosandboxError) as caught:
                await make(image=reference, registry_auth=wrong)
            assert reference.split(":")[0] in str(caught.value)
            assert CANARY not in f"{caught.value!r} {caught.value} {caught.value.__dict__}"
        box = await make(f"box-{kind}", image=reference, registry_auth=RegistryAuth.basic(USER, PASSWORD))
        assert (await box.exec("cat", ["/etc/top"])).stdout_text == "top\n"
    said = capfd.readouterr()
    assert PASSWORD not in said.out + said.err and CANARY not in said.out + said.err


async def test_a_private_authority_is_trusted_where_it_is_named(
    make: Make, start_registry: Start, busybox_archive: Path
) -> None:
    registry = start_registry("tls")
    assert registry.ca is not None
    reference = registry.push(busybox_archive, "busybox:1")
    with pytest.raises(MicrosandboxError, match="certificate"):
        await make(image=reference)
    await make("by-path", image=reference, registry_ca_certs=[registry.ca])
    await make("by-bytes", image=reference, registry_ca_certs=[registry.ca.read_bytes()], pull_policy=PullPolicy.ALWAYS)


async def test_logins_and_dockers_file_are_found(
    make: Make, home: Path, start_registry: Start, busybox_archive: Path, tmp_path: Path
) -> None:
    registry = start_registry("basic")
    reference = registry.push(busybox_archive, "private/busybox:1")
    login = [MSB, "registry", "login", registry.host, "-u", USER, "--password-stdin"]
    environ = {**os.environ, **on(home)}
    done = subprocess.run(login, input=f"{PASSWORD}\n", env=environ, capture_output=True, text=True, timeout=within(60))
    assert done.returncode == 0 and PASSWORD not in done.stdout + done.stderr, done.stderr
    listed = msb("registry", "list", "--format", "json", **on(home))
    assert json.loads(listed.stdout) == [{"registry": registry.host, "store": "file"}]
    assert (home / "secrets" / "registries.json").stat().st_mode & 0o777 == 0o600
    await make("by-login", image=reference)
    assert msb("registry", "logout", registry.host, **on(home)).returncode == 0
    with pytest.raises(MicrosandboxError):
        await make("without", image=reference, pull_policy=PullPolicy.ALWAYS)
    docker = tmp_path / "user" / ".docker"
    docker.mkdir()
    program = tmp_path / "bin" / "docker-credential-tests"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho \'{{"Username": "{USER}", "Secret": "{PASSWORD}"}}\'\n')
    program.chmod(0o755)
    (docker / "config.json").write_text(json.dumps({"credHelpers": {registry.host: "tests"}}))
    os.environ["PATH"] = f"{program.parent}:{os.environ['PATH']}"
    try:
        await make("by-docker", image=reference, pull_policy=PullPolicy.ALWAYS)
    finally:
        os.environ["PATH"] = os.environ["PATH"].partition(":")[2]


def test_a_login_needs_standard_input_or_a_terminal(home: Path) -> None:
    refused = msb("registry", "login", "r.example", "-u", "me", **on(home))
    assert refused.returncode == 2 and "--password-stdin" in refused.stderr
    assert msb("registry", "logout", "r.example", **on(home)).returncode == 1
    assert "No logins" in msb("registry", "list", **on(home)).stderr


async def test_events_come_in_the_documented_order(local: Any, registry: Registry, busybox_archive: Path) -> None:
    reference = registry.push(busybox_archive, "busybox:1")
    session = Sandbox.create_with_progress("box", image=reference, backend=local)
    events = [event async for event in session.progress]
    box = await session.result()
    try:
        kinds = [event.event_type for event in events]
        assert kinds[:2] == [PullEventType.RESOLVING, PullEventType.RESOLVED]
        assert kinds[-1] is PullEventType.COMPLETE
        resolved, complete = events[1], events[-1]
        assert resolved.reference == complete.reference == events[0].reference
        assert resolved.layer_count == complete.layer_count == 3
        assert resolved.manifest_digest is not None and resolved.manifest_digest.startswith("sha256:")
        assert resolved.total_download_bytes and resolved.total_download_bytes > 500_000
        for index in range(3):
            of_layer = [e.event_type for e in events if e.layer_index == index]
            downloaded = of_layer.index(PullEventType.LAYER_DOWNLOAD_COMPLETE)
            assert PullEventType.LAYER_MATERIALIZE_COMPLETE in of_layer[downloaded:]
            assert PullEventType.LAYER_MATERIALIZE_STARTED in of_layer
        done = [e for e in events if e.event_type is PullEventType.LAYER_DOWNLOAD_COMPLETE]
        assert sum(e.downloaded_bytes or 0 for e in done) == resolved.total_download_bytes
    finally:
        await box.kill()
        await Sandbox.remove("box", backend=local)
    session = Sandbox.create_with_progress("box", image=reference, backend=local)
    assert [event async for event in session.progress] == []
    await (await session.result()).kill()
    await Sandbox.remove("box", backend=local)


BIG = 12 << 20


@pytest.fixture(scope="module")
def big_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image with one layer of 12 MiB that does not compress."""
    data = random.Random(17).randbytes(BIG)
    archive = Archive([layer([directory("bin"), file("data", data)])], compress=False)
    return archive.write(tmp_path_factory.mktemp("big") / "big.oci.tar")


def layer_bytes(registry: FakeRegistry, digest: str) -> int:
    return sum(request.sent for request in registry.asked(f"/blobs/{digest}", "GET"))


async def test_a_cancelled_pull_resumes_where_it_was(
    local: Any, home: Path, fake_registry: FakeRegistry, big_archive: Path
) -> None:
    reference = fake_registry.add(big_archive, "big", "1")
    (digest,) = fake_registry.images["big:1"].layers

    def stall(request: Request) -> Answer | None:
        if digest not in request.path:
            return None
        answer = fake_registry.honest(request)
        answer.stall = (BIG // 2, within(60))
        return answer

    fake_registry.meddle = stall
    session = Sandbox.create_with_progress("box", image=reference, backend=local)
    async for event in session.progress:
        if (event.downloaded_bytes or 0) >= BIG // 3:
            session.cancel()
            break
    with pytest.raises(RuntimeError, match="already consumed"):
        await session.result()
    part = home / "cache" / "blobs" / ".part" / digest.removeprefix("sha256:")
    deadline = time.monotonic() + within(10)
    while not part.exists() or part.stat().st_size < BIG // 3:
        assert time.monotonic() < deadline, list((home / "cache").rglob("*"))
        await asyncio.sleep(0.02)
    assert (await Sandbox.list(backend=local)).sandboxes == []
    fake_registry.meddle = lambda request: None
    kept = part.stat().st_size
    session = Sandbox.create_with_progress("box", image=reference, backend=local)
    box = await session.result()
    try:
        again = fake_registry.asked(f"/blobs/{digest}", "GET")[-1]
        assert again.status == 206
        assert int(again.headers["range"].removeprefix("bytes=").rstrip("-")) >= kept - (1 << 20)
    finally:
        await box.kill()
        await Sandbox.remove("box", backend=local)


async def test_a_connection_cut_at_half_sends_little_twice(
    make: Make, fake_registry: FakeRegistry, big_archive: Path
) -> None:
    reference = fake_registry.add(big_archive, "big", "1")
    (digest,) = fake_registry.images["big:1"].layers
    cut: list[str] = []

    def once(request: Request) -> Answer | None:
        if digest not in request.path or cut:
            return None
        cut.append(request.path)
        answer = fake_registry.honest(request)
        answer.cut_after = BIG // 2
        return answer

    fake_registry.meddle = once
    await make(image=reference)
    assert cut
    assert layer_bytes(fake_registry, digest) <= len(fake_registry.content(digest) or b"") + (1 << 20)


PULL = """
import asyncio, sys
from microsandbox import LocalBackend, Sandbox
async def main():
    backend = LocalBackend(home=sys.argv[1], isolation="container")
    await (await Sandbox.create(sys.argv[2], image=sys.argv[3], backend=backend)).destroy(force=True)
asyncio.run(main())
"""


def test_two_processes_download_an_image_once(home: Path, fake_registry: FakeRegistry, big_archive: Path) -> None:
    reference = fake_registry.add(big_archive, "big", "1")
    commands = [[sys.executable, "-W", "ignore", "-c", PULL, str(home), name, reference] for name in ("one", "two")]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    for process in running:
        _, said = process.communicate(timeout=within(60))
        assert process.returncode == 0, said
    for digest in fake_registry.images["big:1"].layers:
        asked = fake_registry.asked(f"/blobs/{digest}", "GET")
        assert len(asked) == 1, [(r.method, r.path, r.status) for r in asked]


def on_a_terminal(command: list[str], *, typed: bytes = b"", **environment: str) -> tuple[int, str]:
    """Exit status of a command whose standard input and error are a terminal, and what that showed."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    environ = {**os.environ, **environment, "TERM": "xterm"}
    process = subprocess.Popen(command, stdin=theirs, stdout=subprocess.DEVNULL, stderr=theirs, env=environ)
    os.close(theirs)
    shown = b""
    try:
        while True:
            assert select.select([ours], [], [], within(60))[0], shown
            try:
                piece = os.read(ours, 65536)
            except OSError:
                break
            shown += piece
            if typed and b"Password" in shown:
                os.write(ours, typed)
                typed = b""
        return process.wait(within(60)), shown.decode(errors="replace")
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_a_terminal_shows_a_bar_and_a_pipe_does_not(home: Path, fake_registry: FakeRegistry, big_archive: Path) -> None:
    reference = fake_registry.add(big_archive, "big", "1")
    command = [sys.executable, "-W", "ignore", "-c", PULL, str(home), "box", reference]
    code, shown = on_a_terminal(command)
    assert code == 0 and f"pulling {reference}" in shown and "MiB" in shown and "%" in shown, shown
    assert on_a_terminal([*command[:-2], "again", reference]) == (0, "")
    other = fake_registry.add(big_archive, "other", "1")
    code, shown = on_a_terminal([MSB, "pull", other], **on(home))
    assert code == 0 and "\x1b" in shown, shown
    assert msb("image", "rm", reference, other, **on(home)).returncode == 0
    assert msb("image", "prune", "-y", **on(home)).returncode == 0
    piped = subprocess.run(command, capture_output=True, text=True, timeout=within(60))
    assert (piped.returncode, piped.stdout, piped.stderr) == (0, "", "")


def test_a_password_is_asked_for_without_an_echo(home: Path) -> None:
    command = [MSB, "registry", "login", "registry.example", "-u", "me"]
    code, shown = on_a_terminal(command, typed=f"{CANARY}\n".encode(), **on(home))
    assert code == 0 and "Password for registry.example" in shown and CANARY not in shown
    assert CANARY in (home / "secrets" / "registries.json").read_text()


def test_the_command_says_what_it_pulls_on_standard_error(
    home: Path, registry: Registry, busybox_archive: Path
) -> None:
    reference = registry.push(busybox_archive, "busybox:1")
    ran = msb("run", "--isolation", "container", reference, "--", "cat", "/etc/top", **on(home))
    assert (ran.returncode, ran.stdout) == (0, "top\n"), ran.stderr
    assert f"pulling {reference}: 3 layers" in ran.stderr and "\r" not in ran.stderr and "\x1b" not in ran.stderr
    again = msb("run", "--isolation", "container", reference, "--", "cat", "/etc/top", **on(home))
    assert (again.returncode, again.stdout, again.stderr) == (0, "top\n", "")
    pulled = msb("pull", reference, **on(home))
    assert (pulled.returncode, pulled.stdout, pulled.stderr) == (0, f"{reference}\n", "")
    quiet = msb("image", "pull", "-q", reference, **on(home))
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, f"{reference}\n", "")
    missing = msb("pull", f"{registry.host}/absent:1", **on(home))
    assert missing.returncode == 1 and "absent" in missing.stderr
    assert "--help" not in missing.stderr


def test_a_secret_of_a_login_is_in_no_output_of_a_failing_pull(
    home: Path, start_registry: Start, busybox_archive: Path
) -> None:
    registry = start_registry("token")
    reference = registry.push(busybox_archive, "private/busybox:1")
    login = [MSB, "registry", "login", registry.host, "-u", USER, "--password-stdin"]
    done = subprocess.run(login, input=CANARY, env={**os.environ, **on(home)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    failed = msb("pull", "--trace", reference, **on(home))
    assert failed.returncode == 1
    for text in (done.stdout, done.stderr, failed.stdout, failed.stderr):
        assert CANARY not in text
    # Nor in the form in which it is sent.
    assert "Basic" not in failed.stderr and "Bearer" not in failed.stderr
    logs = "".join(p.read_text(errors="replace") for p in (home / "logs").rglob("*") if p.is_file())
    assert CANARY not in logs


def test_the_debug_form_of_credentials_hides_the_secret() -> None:
    auth = RegistryAuth.basic("me", CANARY)
    assert CANARY not in f"{auth!r} {auth}"
