"""Tenants of `msb serve`: what a key makes is its owner's, and no other owner sees, uses or learns of it."""

from __future__ import annotations

import base64
import contextlib
import ctypes
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from microsandbox import CloudBackend, CloudHttpError, Sandbox
from servers import HOST, OFFER, SCOPES, Reply, Serve, Server, msb, new_key

SECRETS = {"variable": "kept-in-a-variable", "script": "kept-in-a-script"}
ABSENT = "00000000-0000-0000-0000-000000000000"
PATH = {"x-msb-file-path": base64.urlsafe_b64encode(b"f").decode().rstrip("=")}
UPGRADE = {
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": base64.b64encode(b"0123456789abcdef").decode(),
}
# What a valid request of an operation has beside its path. An operation that is not here has nothing.
BODIES: dict[str, Any] = {
    "startSandbox": {},
    "startSandboxById": {},
    "stopSandbox": {},
    "stopSandboxById": {},
    "exec": {"cmd": "true"},
    "makeDirectory": {"path": "d"},
    "copyFile": {"from": "f", "to": "g"},
    "renameFile": {"from": "f", "to": "h"},
    "createSandbox": {"name": "made", "image": HOST, "resources": {"vcpus": 1, "memory_mib": 128}},
    "createVolume": {"name": "made"},
}
QUERIES = {"logs": "?follow=false", "logsByName": "?tail=1"}
# On what is one's own: removals first, which a running sandbox and a mounted volume refuse; the end of the sandbox last,
# and a volume after that: it can be removed where its sandbox has not started again yet.
LAST = {"stopSandbox": 1, "stopSandboxById": 1, "startSandbox": 2, "startSandboxById": 2, "removeVolume": 3}
# Codes that say that the object itself was not found.
UNSEEN = {"sandbox_not_found", "volume_not_found", "not_found"}


@dataclass(frozen=True)
class Operation:
    """A row of the OpenAPI document."""

    id: str
    method: str
    path: str
    scopes: tuple[str, ...]

    @property
    def has_object(self) -> bool:
        return "{" in self.path

    def ask(self, server: Server, key: str, target: Target) -> Reply:
        name = target.volume if self.path.startswith("/v1/volumes") else target.sandbox
        identity = target.volume if self.path.startswith("/v1/volumes") else target.id
        path = self.path.replace("{name}", name).replace("{id}", identity) + QUERIES.get(self.id, "")
        headers = {**PATH, **(UPGRADE if self.id == "agent" else {})}
        body = b"content" if self.id == "writeFile" else BODIES.get(self.id)
        return server.ask(self.method, path, body, key=key, headers=headers)


@dataclass(frozen=True)
class Target:
    """A sandbox and a volume, as a key calls them."""

    sandbox: str
    id: str
    volume: str

    def masked(self, reply: Reply) -> tuple[int, str]:
        """The answer without the names that the request gave."""
        text = reply.body.decode(errors="replace")
        for index, name in enumerate((self.id, self.sandbox, self.volume)):
            text = text.replace(name, f"<{index}>")
        return reply.status, text


def operations(server: Server) -> list[Operation]:
    document = server.ask("GET", "/openapi.json").json
    found = [
        Operation(row["operationId"], method.upper(), path, tuple(row["x-scopes"]))
        for path, item in document["paths"].items()
        for method, row in item.items()
        if "x-scopes" in row
    ]
    return sorted(found, key=lambda row: (LAST.get(row.id, 0), row.method != "DELETE"))


def refused_for(reply: Reply) -> str | None:
    """The code of a refusal; none where the operation reached what it is about."""
    if reply.status < 400:
        return None
    return reply.code if reply.code in UNSEEN | {"forbidden", "invalid_api_key"} else None


def furnish(server: Server, key: str, name: str) -> Target:
    """A volume with a file, and a sandbox that mounts it, both with this name."""
    assert server.ask("POST", "/v1/volumes", {"name": name}, key=key).status == 200
    put = server.ask("PUT", f"/v1/volumes/{name}/files/content", b"content", key=key, headers=PATH)
    assert put.status == 200, put.body
    body = {
        **BODIES["createSandbox"],
        "name": name,
        "env": [{"key": "TOKEN", "value": SECRETS["variable"]}],
        "runtime": {"scripts": {"tool": f"echo {SECRETS['script']}"}},
        "mounts": [{"type": "named", "name": name, "guest": "/data"}],
    }
    made = server.ask("POST", "/v1/sandboxes", body, key=key)
    assert made.status == 200, made.body
    return Target(name, made.json["id"], name)


async def local(home: Path) -> Target:
    """The same, made on this machine."""
    from microsandbox import LocalBackend, Volume

    backend = LocalBackend(home=home, isolation="container")
    await Volume.create("local", backend=backend)
    options: dict[str, Any] = {"env": {"TOKEN": SECRETS["variable"]}, "volumes": {"/data": Volume.named("local")}}
    await Sandbox.create("local", image="host", memory=128, detached=True, backend=backend, **options)
    return Target("local", json.loads(msb("inspect", "local", "--format", "json").stdout)["id"], "local")


def clear() -> None:
    """Removes every sandbox of the test's home, whoever owns it."""
    if names := msb("list", "--quiet").stdout.split():
        removed = msb("remove", "--force", *names)
        assert removed.returncode == 0, removed.stderr


@pytest.fixture
def tenants(serve: Serve) -> Iterator[Server]:
    """A server, and at the end no sandbox of any owner."""
    server = serve()
    yield server
    clear()


def every_scope(*more: str) -> list[str]:
    return [word for scope in [*SCOPES, *more] for word in ("--scope", scope)]


async def test_every_route_gives_a_key_its_own_and_only_that(tenants: Server, home: Path) -> None:
    server, rows = tenants, operations(tenants)
    assert len(rows) > 25
    own = furnish(server, server.key, "mine")
    stranger = new_key("stranger", *every_scope())
    foreign, here = furnish(server, stranger, "theirs"), await local(home)
    absent = Target("absent", ABSENT, "absent")
    keys = {
        scope: new_key(scope.replace(":", "-"), "--same-owner-as", "fixture-0", "--scope", scope)
        for scope in [*SCOPES, "admin"]
    }
    for scope, key in keys.items():
        for row in rows:
            said = {}
            for kind, target in {"absent": absent, "foreign": foreign, "local": here, "own": own}.items():
                reply = row.ask(server, key, target)
                said[kind] = target.masked(reply)
                context = f"{scope}: {row.method} {row.path} of what is {kind}: {reply.status} {reply.body!r}"
                for text in (*SECRETS.values(), str(home), stranger, "theirs" if kind != "foreign" else str(home)):
                    assert text.encode() not in reply.body, context
                refusal = refused_for(reply)
                if scope not in row.scopes:
                    assert (reply.status, refusal) == (403, "forbidden"), context
                elif kind == "own" or not row.has_object:
                    assert refusal is None or row.id == "defaultVolume", context
                else:
                    assert reply.status == 404 and refusal in UNSEEN, context
                if not row.has_object:
                    break
            if row.has_object:
                assert said["foreign"] == said["local"] == said["absent"], f"{scope}: {row.method} {row.path}: {said}"
    server.ask("POST", "/v1/sandboxes/by-name/made/stop", {})
    # What was not its to use is as it was.
    shown = server.ask("GET", f"/v1/sandboxes/{foreign.id}", key=stranger).json
    assert (shown["name"], shown["status"]) == (foreign.sandbox, "running")
    kept = server.ask("GET", f"/v1/volumes/{foreign.volume}/files/content", key=stranger, headers=PATH)
    assert kept.body == b"content"


async def test_lists_show_ones_own_and_an_admin_all(serve: Serve, tenants: Server, home: Path) -> None:
    server = tenants
    furnish(server, server.key, "box")
    # The same name is free for every owner.
    stranger = new_key("stranger", *every_scope())
    furnish(server, stranger, "box")
    await local(home)
    admin = new_key("boss", *every_scope("admin"))

    def seen(server: Server, key: str) -> tuple[list[str], list[str]]:
        sandboxes = server.ask("GET", "/v1/sandboxes", key=key).json["data"]
        volumes = server.ask("GET", "/v1/volumes", key=key).json
        return [row["name"] for row in sandboxes], [row["name"] for row in volumes]

    for key in (server.key, stranger):
        assert seen(server, key) == (["box"], ["box"])
    sandboxes, volumes = seen(server, admin)
    assert len(sandboxes) == len(set(sandboxes)) == 3 and "local" in sandboxes
    assert len(volumes) == len(set(volumes)) == 3 and "local" in volumes
    for name in sandboxes:
        assert server.ask("GET", f"/v1/sandboxes/by-name/{name}", key=admin).json["name"] == name
    for name in volumes:
        assert server.ask("GET", f"/v1/volumes/{name}/files", key=admin, headers=PATH).code != "volume_not_found"
    assert server.ask("GET", "/v1/sandboxes/by-name/local").code == "sandbox_not_found"
    sharing = serve("--share-local")
    fresh = new_key("fresh", *every_scope())
    assert seen(sharing, fresh) == (["local"], ["local"])
    shown = sharing.ask("GET", "/v1/sandboxes/by-name/local", key=fresh).json
    assert shown["spec"]["env"] == [{"key": "TOKEN", "value": ""}]
    ran = sharing.ask("POST", "/v1/sandboxes/by-name/local/exec", {"cmd": "true"}, key=fresh)
    assert ran.json["exit_code"] == 0


def test_only_ones_own_volumes_can_be_mounted(tenants: Server) -> None:
    server = tenants
    stranger = new_key("stranger", *every_scope())
    assert server.ask("POST", "/v1/volumes", {"name": "theirs"}, key=stranger).status == 200
    assert server.ask("POST", "/v1/volumes", {"name": "mine"}).status == 200
    reader = new_key("reader", "--same-owner-as", "fixture-0", "--scope", "sandboxes:write", "--scope", "volumes:read")

    def create(key: str, volume: str, readonly: bool) -> Reply:
        mount = {"type": "named", "name": volume, "guest": "/data", "options": {"readonly": readonly}}
        return server.ask("POST", "/v1/sandboxes", {**BODIES["createSandbox"], "mounts": [mount]}, key=key)

    refused = create(server.key, "theirs", True)
    assert (refused.status, refused.code) == (404, "volume_not_found")
    assert refused.body.replace(b"theirs", b"absent") == create(server.key, "absent", True).body
    assert create(reader, "mine", False).code == "forbidden"
    made = create(reader, "mine", True)
    assert made.status == 200, made.body
    assert made.json["spec"]["mounts"][0]["name"] == "mine"
    server.remove("made")


async def test_the_relay_admits_what_the_key_may_do(tenants: Server) -> None:
    server = tenants
    server.create("box")
    may = {
        "exec": {"exec"},
        "files:read": {"read"},
        "files:write": {"write"},
    }
    for scope, expected in may.items():
        key = new_key(
            scope.replace(":", "-"), "--same-owner-as", "fixture-0", "--scope", scope, "--scope", "sandboxes:read"
        )
        box = await (await Sandbox.get("box", backend=CloudBackend(server.url, key))).connect()
        calls = {
            "exec": lambda box=box: box.exec("true"),
            "read": lambda box=box: box.fs.read("/etc/hostname"),
            "write": lambda box=box: box.fs.write("/tmp/x", b"x"),
        }
        for name, call in calls.items():
            if name in expected:
                await call()
                continue
            with pytest.raises(CloudHttpError, match="lacks the scope") as caught:
                await call()
            assert caught.value.status == 403


def test_a_key_that_replaces_another_has_its_objects(tenants: Server) -> None:
    server = tenants
    made = server.create("box")
    successor = new_key("successor", "--same-owner-as", "fixture-0", *every_scope())
    assert msb("serve", "key", "revoke", "fixture-0").returncode == 0
    server.key = successor
    assert server.ask("GET", "/v1/sandboxes/by-name/box").json["id"] == made["id"]
    assert msb("serve", "key", "create", "x", "--same-owner-as", "fixture-0").returncode == 1


@contextlib.contextmanager
def reads_of(directory: Path) -> Iterator[Callable[[], bool]]:
    """Says whether any process has read the names in a directory since it was last asked (inotify(7), IN_ACCESS)."""
    libc = ctypes.CDLL(None)
    watch = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    assert watch >= 0

    def seen() -> bool:
        try:
            return bool(os.read(watch, 1 << 16))
        except BlockingIOError:
            return False

    try:
        assert libc.inotify_add_watch(watch, bytes(directory), 1) > 0
        yield seen
    finally:
        os.close(watch)


def test_a_volume_is_measured_only_where_asked(tenants: Server, home: Path) -> None:
    server = tenants
    for name in ("large", "small"):
        assert server.ask("POST", "/v1/volumes", {"name": name}).status == 200
    (directory,) = (home / "volumes").glob("*-large")
    (directory / "file").write_bytes(bytes(100))

    def ask(path: str, **headers: str) -> Reply:
        reply = server.ask("GET", path, headers=headers)
        assert reply.status == 200, reply.body
        return reply

    with reads_of(directory) as is_read:
        assert all(isinstance(row["used_bytes"], int) for row in ask("/v1/volumes?usage=true").json)
        assert is_read()
        rows = ask("/v1/volumes?usage=true&name=small").json
        assert [(row["name"], row["used_bytes"]) for row in rows] == [("small", 0)]
        assert [row["used_bytes"] for row in ask("/v1/volumes").json] == [None, None]
        ask("/v1/volumes/small/files/exists", **PATH)
        ask("/v1/volumes/large/files/exists", **PATH)
        assert not is_read()


def test_the_image_host_must_be_offered(serve: Serve) -> None:
    first = serve()
    first.create("box")
    first.ask("POST", "/v1/sandboxes/by-name/box/stop", {})
    assert first.end() == 0
    server = serve(offer=["--isolation", "container"])
    for image in ("host", HOST):
        refused = server.ask("POST", "/v1/sandboxes", {"name": "x", "image": image})
        assert (refused.status, refused.code) == (422, "unsupported"), refused.body
        assert "--allow-host-image" in refused.json["error"]["details"]["available_when"]
    refused = server.ask("POST", "/v1/sandboxes/by-name/box/start", {})
    assert (refused.status, refused.code) == (422, "unsupported"), refused.body
    server.remove("box")


def test_a_server_without_microvms_needs_isolation_container(home: Path) -> None:
    for flags in ((), ("--isolation", "microvm")):
        # Without a guest kernel no machine boots, whatever /dev/kvm is.
        absent = str(home / "no-libkrunfw.so")
        refused = msb("serve", "--listen", "127.0.0.1:0", "--insecure-http", *flags, MSB_LIBKRUNFW_PATH=absent)
        assert refused.returncode == 1, refused
        assert "cannot run microVMs" in refused.stderr
        assert "--isolation container" in refused.stderr
    assert OFFER[:2] == ["--isolation", "container"]
