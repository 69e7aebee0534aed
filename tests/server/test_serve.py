"""`msb serve` from the outside: sandboxes over the wire, its keys, its certificates, its end."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import ssl
import stat
import struct
import time
from pathlib import Path

import pytest
from pace import within
from servers import HOST, Serve, Server, msb, new_key


def test_a_sandbox_is_made_used_and_removed(server: Server) -> None:
    made = server.create("box", labels={"team": "x"}, env=[{"key": "GREETING", "value": "hello"}])
    assert made["status"] == "running"
    assert made["spec"]["labels"] == {"team": "x"}
    ran = server.ask("POST", "/v1/sandboxes/by-name/box/exec", {"cmd": "sh", "args": ["-c", "echo $GREETING; exit 3"]})
    assert (ran.status, ran.json["exit_code"], base64.b64decode(ran.json["stdout"])) == (200, 3, b"hello\n")
    page = server.ask("GET", "/v1/sandboxes/by-name/box/logs").json
    assert "hello\n" in [entry["text"] for entry in page["entries"]]
    report = server.ask("GET", f"/v1/sandboxes/{made['id']}/isolation").json
    assert report["driver"] in ("container", "microvm")
    assert server.ask("DELETE", "/v1/sandboxes/by-name/box").code == "sandbox_still_running"
    server.remove("box")
    assert server.ask("GET", f"/v1/sandboxes/{made['id']}").code == "sandbox_not_found"


@pytest.mark.case(67)
def test_a_local_sandbox_boots_whatever_start_says(server: Server) -> None:
    body = {"name": "box", "image": HOST}
    made = server.ask("POST", "/v1/sandboxes?start=false&wait_for=running&wait_timeout=60", body)
    assert made.status in (200, 201, 202), made.body
    ran = server.ask("POST", "/v1/sandboxes/by-name/box/exec", {"cmd": "true"})
    assert ran.json["exit_code"] == 0
    server.remove("box")


def test_a_followed_log_ends_with_the_sandbox(server: Server) -> None:
    made = server.create("box")
    server.ask("POST", "/v1/sandboxes/by-name/box/exec", {"cmd": "echo", "args": ["line"]})
    connection = server.connection()
    headers = {"authorization": f"Bearer {server.key}", "accept": "text/event-stream"}
    connection.request("GET", f"/v1/sandboxes/{made['id']}/logs?sources=stdout,stderr,output", headers=headers)
    answer = connection.getresponse()
    assert answer.getheader("content-type") == "text/event-stream"
    while not (line := answer.readline().decode()).startswith("data:"):
        assert line, "the stream ended"
    assert json.loads(line.removeprefix("data: "))["text"] == "line\n"
    server.ask("POST", "/v1/sandboxes/by-name/box/stop", {})
    assert "event: end" in answer.read().decode()
    connection.close()


def test_host_paths_are_never_the_callers_to_name(server: Server) -> None:
    for option in (
        {"image": {"type": "bind", "path": "/etc"}},
        {"image": {"type": "disk_image", "path": "/dev/vda", "format": "raw"}},
        {"mounts": [{"type": "bind", "host": "/etc", "guest": "/mnt"}]},
        {"mounts": [{"type": "disk_image", "host": "/dev/vda", "guest": "/mnt", "format": "raw"}]},
    ):
        refused = server.ask("POST", "/v1/sandboxes", {"name": "box", "image": HOST, **option})
        assert (refused.status, refused.code) == (422, "unsupported"), refused.body
        assert refused.json["error"]["details"]["feature"]
    assert server.ask("GET", "/v1/sandboxes").json["data"] == []


def test_the_number_of_sandboxes_is_bounded(serve: Serve) -> None:
    server = serve("--max-sandboxes", "1")
    server.create("one")
    second = server.ask("POST", "/v1/sandboxes", {"name": "two", "image": HOST})
    assert (second.status, second.code, second.headers["retry-after"]) == (429, "resource_exhausted", "1")


def test_a_revoked_key_ends_on_the_running_server(server: Server, home: Path) -> None:
    made = msb("serve", "key", "create", "ci", "--scope", "sandboxes:read")
    key = made.stdout.removesuffix("\n")
    assert "\n" not in key
    assert key.startswith("msb_live_")
    assert len(key) == len("msb_live_") + 43
    assert key not in made.stderr
    assert server.ask("GET", "/v1/sandboxes", key=key).status == 200
    assert server.ask("POST", "/v1/sandboxes", {"name": "x", "image": HOST}, key=key).code == "forbidden"
    file = home / "serve" / "keys.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert key.removeprefix("msb_live_") not in file.read_text()
    listed = msb("serve", "key", "list", "--format", "json")
    assert [k["scopes"] for k in json.loads(listed.stdout) if k["name"] == "ci"] == [["sandboxes:read"]]
    assert key.removeprefix("msb_live_") not in listed.stdout
    assert msb("serve", "key", "create", "ci").returncode == 1
    assert msb("serve", "key", "revoke", "ci").returncode == 0
    assert server.ask("GET", "/v1/sandboxes", key=key).code == "invalid_api_key"
    assert msb("serve", "key", "revoke", "ci").returncode == 1


def test_a_key_expires(server: Server) -> None:
    key = new_key("short", "--expires", "1s")
    assert server.ask("GET", "/v1/sandboxes", key=key).status == 200
    deadline = time.monotonic() + within(20)
    while server.ask("GET", "/v1/sandboxes", key=key).status == 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert server.ask("GET", "/v1/sandboxes", key=key).status == 401


def test_a_transport_must_be_chosen(home: Path) -> None:
    for flags, word in (
        ((), "--tls-self-signed"),
        (("--insecure-http", "--listen", "0.0.0.0:0"), "loopback"),
        (("--insecure-http", "--tls-self-signed"), "cannot be used with"),
        (("--tls-cert", "/nowhere"), "--tls-key"),
        (("--insecure-http", "--listen", "nonsense"), "127.0.0.1:8443"),
    ):
        refused = msb("serve", *flags)
        assert refused.returncode == 2, refused
        assert word in refused.stderr
    missing = msb("serve", "--tls-cert", "/nowhere/cert.pem", "--tls-key", "/nowhere/key.pem")
    assert missing.returncode == 1
    assert "/nowhere/" in missing.stderr


def test_a_cloud_is_not_served(home: Path) -> None:
    refused = msb(
        "serve", "--insecure-http", MSB_BACKEND="cloud", MSB_API_URL="http://127.0.0.1:1", MSB_API_KEY="msb_live_hidden"
    )
    assert refused.returncode == 1
    assert "MSB_BACKEND=local" in refused.stderr
    assert "msb_live_hidden" not in refused.stderr


def test_a_certificate_of_ones_own_is_made_once_and_verifies(serve: Serve, home: Path) -> None:
    server = serve("--tls-self-signed")
    assert server.url.startswith("https://127.0.0.1:")
    notes = server.notes.read_text()
    certificate, key = home / "serve" / "cert.pem", home / "serve" / "key.pem"
    assert str(certificate) in notes
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    der = ssl.PEM_cert_to_DER_cert(certificate.read_text())
    digest = hashlib.sha256(der).hexdigest().upper()
    assert ":".join(digest[i : i + 2] for i in range(0, 64, 2)) in notes
    assert server.ask("GET", "/v1/sandboxes").status == 200
    named = server.connection("localhost")
    named.request("GET", "/healthz")
    assert named.getresponse().status == 200
    named.close()
    # Neither an unknown authority nor another name is taken, and plain HTTP gets nothing.
    with socket.create_connection(("127.0.0.1", server.port)) as raw, pytest.raises(ssl.SSLCertVerificationError):
        ssl.create_default_context().wrap_socket(raw, server_hostname="127.0.0.1")
    assert server.trust
    with socket.create_connection(("127.0.0.1", server.port)) as raw, pytest.raises(ssl.SSLCertVerificationError):
        server.trust.wrap_socket(raw, server_hostname="elsewhere.example")
    with socket.create_connection(("127.0.0.1", server.port), timeout=within(20)) as raw:
        raw.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert not raw.recv(100).startswith(b"HTTP/1.1 200")
    assert server.end() == 0
    serve("--tls-self-signed")
    assert ssl.PEM_cert_to_DER_cert(certificate.read_text()) == der


def test_an_end_leaves_sandboxes_running(serve: Serve) -> None:
    first = serve()
    made = first.create("box")
    idle = socket.create_connection(("127.0.0.1", first.port))
    begun = time.monotonic()
    assert first.end() == 0
    assert time.monotonic() - begun < within(8), "an idle connection held it back"
    idle.close()
    listed = json.loads(msb("list", "--format", "json").stdout)
    assert [(s["name"].partition("-")[2], s["status"].lower()) for s in listed] == [("box", "running")]
    second = serve()
    assert second.ask("GET", f"/v1/sandboxes/{made['id']}").json["org_id"] == made["org_id"]
    ran = second.ask("POST", "/v1/sandboxes/by-name/box/exec", {"cmd": "true"})
    assert ran.json["exit_code"] == 0


def test_the_access_log_has_a_line_a_request_and_no_key(server: Server) -> None:
    server.ask("GET", "/v1/sandboxes/by-name/none", headers={"x-request-id": "mine"})
    server.ask("GET", "/v1/sandboxes", key="msb_live_guessed")
    deadline = time.monotonic() + within(10)
    while len(lines := server.access_log.read_text().splitlines()) < 2:
        assert time.monotonic() < deadline, lines
        time.sleep(0.02)
    known, guessed = map(json.loads, lines)
    assert (known["route"], known["status"], known["key"]) == ("/v1/sandboxes/by-name/{name}", 404, "fixture-0")
    assert (known["request_id"], known["method"]) == ("mine", "GET")
    assert (guessed["status"], guessed["key"]) == (401, None)
    everything = server.access_log.read_text() + server.notes.read_text()
    assert server.key not in everything
    assert "guessed" not in everything
    assert 'route="/v1/sandboxes",status="401"' in server.ask("GET", "/metrics").body.decode()


def upgrade(server: Server, identity: str, key: str) -> tuple[socket.socket, str]:
    """Asks for the agent's WebSocket; the socket and the head of the answer."""
    raw = socket.create_connection(("127.0.0.1", server.port), timeout=within(30))
    lines = [
        f"GET /v1/sandboxes/{identity}/agent HTTP/1.1",
        "host: test",
        "connection: Upgrade",
        "upgrade: websocket",
        "sec-websocket-version: 13",
        f"sec-websocket-key: {base64.b64encode(os.urandom(16)).decode()}",
        f"authorization: Bearer {key}",
    ]
    raw.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    head = b""
    while b"\r\n\r\n" not in head:
        got = raw.recv(1)
        assert got, head
        head += got
    return raw, head.decode()


def exactly(raw: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count:
        more = raw.recv(count - len(got))
        assert more, "the connection ended"
        got += more
    return got


def frame(raw: socket.socket) -> tuple[int, bytes]:
    """The next WebSocket frame of the server: its opcode and payload."""
    first, second = exactly(raw, 2)
    assert not second & 0x80, "servers do not mask"
    length = second & 0x7F
    if length == 126:
        (length,) = struct.unpack(">H", exactly(raw, 2))
    elif length == 127:
        (length,) = struct.unpack(">Q", exactly(raw, 8))
    return first & 0x0F, exactly(raw, length)


def test_the_agent_route_greets_and_closes_in_order(server: Server) -> None:
    made = server.create("box")
    for identity, key, status in (
        (made["id"], "msb_live_wrong", 401),
        ("00000000-0000-0000-0000-000000000000", server.key, 404),
    ):
        raw, head = upgrade(server, identity, key)
        raw.close()
        assert head.startswith(f"HTTP/1.1 {status} "), head
    raw, head = upgrade(server, made["id"], server.key)
    assert head.startswith("HTTP/1.1 101 "), head
    opcode, greeting = frame(raw)
    low, high, length = struct.unpack(">III", greeting[:12])
    assert (opcode, len(greeting)) == (2, 12 + length)
    assert 0 < low < high
    assert b"core.ready" in greeting
    # A close of ours, masked as clients must; the answer is a close.
    raw.sendall(bytes([0x88, 0x82]) + bytes(4) + struct.pack(">H", 1000))
    assert frame(raw)[0] == 8
    raw.close()
    # A server that ends says so to who is connected.
    raw, _ = upgrade(server, made["id"], server.key)
    frame(raw)
    server.ask("POST", "/v1/sandboxes/by-name/box/stop", {})
    assert frame(raw)[0] == 8
    raw.close()
    server.remove("box")
    raw, head = upgrade(server, made["id"], server.key)
    raw.close()
    assert head.startswith("HTTP/1.1 404 "), head
