"""What a client of `msb serve` can make the server pull: with its own credentials or the server's, from public registries only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from microsandbox import CloudBackend, MicrosandboxError, RegistryAuth, Sandbox
from registry import PASSWORD, USER, FakeRegistry, Start
from servers import Serve, Server, msb, on

pytestmark = pytest.mark.fresh_home


def configure(home: Path, **registries: object) -> None:
    document = json.loads((home / "config.json").read_text()) if (home / "config.json").exists() else {}
    (home / "config.json").write_text(json.dumps({**document, "registries": registries}))


def ask(server: Server, reference: str, **options: object) -> tuple[int, str]:
    body = {
        "name": "box",
        "image": {"type": "oci", "reference": reference},
        "resources": {"vcpus": 1, "memory_mib": 128},
        **options,
    }
    made = server.ask("POST", "/v1/sandboxes?start=true&wait_for=running&wait_timeout=60", body)
    return made.status, made.body.decode()


@pytest.mark.hazard("I14")
def test_a_client_cannot_make_the_server_ask_inside(
    serve: Serve, fake_registry: FakeRegistry, busybox_archive: Path
) -> None:
    reference = fake_registry.add(busybox_archive, "busybox", "1")
    port = fake_registry.host.partition(":")[2]
    server = serve()
    for host in ("127.0.0.1", "localhost", "[::1]", "0.0.0.0", "127.1.2.3"):
        status, said = ask(server, reference.replace(fake_registry.host, f"{host}:{port}"))
        assert 400 <= status < 500, (host, status, said)
        assert "for_clients" in said or "reference" in said, (host, said)
    status, said = ask(server, reference, registry={"mode": "inline", "username": USER, "password": PASSWORD})
    assert 400 <= status < 500 and PASSWORD not in said
    assert fake_registry.log == []


@pytest.mark.hazard("I14")
def test_a_client_names_no_archive_of_the_servers_machine(serve: Serve, busybox_archive: Path, tmp_path: Path) -> None:
    server = serve()
    for name in (
        f"oci-archive:{busybox_archive}",
        f"docker-archive:{busybox_archive}",
        f"oci:{tmp_path}",
        "docker-daemon:x",
    ):
        status, said = ask(server, name)
        assert (status, json.loads(said)["error"]["code"]) == (422, "unsupported"), (name, said)
        assert str(tmp_path) not in said


def test_what_the_operator_allows_is_pulled_for_clients(
    home: Path, serve: Serve, fake_registry: FakeRegistry, busybox_archive: Path
) -> None:
    reference = fake_registry.add(busybox_archive, "busybox", "1")
    configure(home, hosts={fake_registry.host: {"for_clients": True}})
    status, said = ask(serve(), reference)
    assert status == 200, said


async def test_a_clients_credentials_go_with_its_creation(
    home: Path, serve: Serve, start_registry: Start, busybox_archive: Path
) -> None:
    registry = start_registry("basic")
    reference = registry.push(busybox_archive, "private/busybox:1")
    configure(home, hosts={registry.host: {"for_clients": True}})
    server = serve()
    backend = CloudBackend(server.url, server.key)
    with pytest.raises(MicrosandboxError) as caught:
        await Sandbox.create("box", image=reference, registry_auth=RegistryAuth(USER, "wrong-3f9c"), backend=backend)
    assert "wrong-3f9c" not in f"{caught.value!r}"
    auth = RegistryAuth(USER, PASSWORD)
    box = await Sandbox.create("box", image=reference, registry_auth=auth, backend=backend)
    assert (await box.exec("cat", ["/etc/top"])).stdout_text == "top\n"
    shown = json.dumps(server.ask("GET", "/v1/sandboxes/by-name/box").json)
    for text in (shown, server.notes.read_text(), server.access_log.read_text()):
        assert PASSWORD not in text and "wrong-3f9c" not in text
    assert all(PASSWORD.encode() not in path.read_bytes() for path in home.glob("db/*"))


@pytest.mark.hazard("I14")
def test_an_image_of_one_clients_credentials_is_not_anothers(
    home: Path, serve: Serve, start_registry: Start, busybox_archive: Path
) -> None:
    registry = start_registry("basic")
    reference = registry.push(busybox_archive, "private/busybox:1")
    configure(home, hosts={registry.host: {"for_clients": True}})
    server = serve()
    mine = {"mode": "inline", "username": USER, "password": PASSWORD}
    status, said = ask(server, reference, registry=mine)
    assert status == 200, said
    server.remove("box")
    digest = json.loads(msb("image", "inspect", reference, "--format", "json", **on(home)).stdout)["digest"]
    for name in (reference, f"{reference.rpartition(':')[0]}@{digest}", digest):
        for policy in ("if_missing", "never", "always"):
            status, said = ask(server, name, pull_policy=policy)
            assert status != 200, (name, policy)
    status, said = ask(server, reference, registry={**mine, "password": "guessed"})
    assert status != 200
    status, said = ask(server, reference, registry=mine)
    assert status == 200, said


def test_the_servers_own_login_serves_clients_too(
    home: Path, serve: Serve, start_registry: Start, busybox_archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    registry = start_registry("basic")
    reference = registry.push(busybox_archive, "private/busybox:1")
    monkeypatch.setenv("TESTS_PASSWORD", PASSWORD)
    configure(
        home,
        hosts={registry.host: {"for_clients": True, "auth": {"username": USER, "password_env": "TESTS_PASSWORD"}}},
    )
    server = serve()
    refused, _ = ask(server, reference, registry={"mode": "anonymous"})
    assert refused != 200
    status, said = ask(server, reference)
    assert status == 200, said
