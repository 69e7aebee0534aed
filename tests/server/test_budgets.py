"""What the clients of `msb serve` may use: budgets of a key and of all keys; and connections of strangers (H4, M12)."""

from __future__ import annotations

import base64
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from microsandbox import LocalBackend, Volume
from pace import within
from servers import HOST, Serve, Server, msb, new_key


def body(name: str, memory: int) -> dict[str, Any]:
    return {"name": name, "image": HOST, "resources": {"memory_mib": memory, "vcpus": 1}}


def refused(answer: Any, budget: str, scope: str) -> None:
    assert (answer.status, answer.code, answer.headers["retry-after"]) == (429, "resource_exhausted", "1"), answer.body
    details = answer.json["error"]["details"]
    assert (details["resource"], details["scope"]) == (budget, scope), details


def soon(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + within(30)
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_key_gets_its_budget_and_no_more(serve: Serve) -> None:
    server = serve("--key-budget", "memory=300", "--budget", "cpus=3", "--key-budget", "volumes=1")
    assert server.ask("POST", "/v1/sandboxes", body("a", 200)).status == 200
    refused(server.ask("POST", "/v1/sandboxes", body("b", 101)), "memory", "key")
    assert server.ask("POST", "/v1/sandboxes", body("b", 100)).status == 200
    other = new_key("other")
    assert server.ask("POST", "/v1/sandboxes", body("c", 300), key=other).status == 200
    third = new_key("third")
    refused(server.ask("POST", "/v1/sandboxes", body("d", 64), key=third), "cpus", "server")
    # What is stopped needs neither; a start needs both again.
    server.ask("POST", "/v1/sandboxes/by-name/b/stop", {})
    soon(lambda: server.ask("POST", "/v1/sandboxes", body("d", 64), key=third).status == 200)
    refused(server.ask("POST", "/v1/sandboxes/by-name/b/start", {}), "cpus", "server")
    for name, key in (("c", other), ("d", third)):
        server.ask("POST", f"/v1/sandboxes/by-name/{name}/stop", {}, key=key)
        soon(lambda name=name, key=key: server.ask("DELETE", f"/v1/sandboxes/by-name/{name}", key=key).status == 200)
    assert server.ask("POST", "/v1/volumes", {"name": "v"}).status == 200
    refused(server.ask("POST", "/v1/volumes", {"name": "w"}), "volumes", "key")


def test_a_full_disk_budget_refuses_to_write(serve: Serve) -> None:
    server = serve("--key-budget", "disk=8", "--budget", "inodes=100000")
    server.create("box")
    script = {"cmd": "sh", "args": ["-c", "head -c 9000000 /dev/urandom > /root/big"]}
    assert server.ask("POST", "/v1/sandboxes/by-name/box/exec", script).json["exit_code"] == 0
    # Measured every ten seconds.
    soon(lambda: server.ask("POST", "/v1/volumes", {"name": f"v{time.monotonic_ns()}"}).status == 429)
    refused(server.ask("POST", "/v1/sandboxes", body("next", 64)), "disk", "key")


async def test_a_file_counts_for_the_owner_of_its_volume(serve: Serve, home: Path) -> None:
    first = serve()
    assert first.ask("POST", "/v1/volumes", {"name": "full"}).status == 200
    await Volume.create("shared", backend=LocalBackend(home=home))
    (directory,) = (home / "volumes").glob("*-full")
    (directory / "large").write_bytes(os.urandom(9 << 20))
    owner = directory.name.removesuffix("-full")
    server = serve("--share-local", "--key-budget", "disk=8")
    boss = new_key("boss", "--scope", "admin", "--scope", "volumes:write")
    for path, content in (("mkdir", {"path": "d"}), ("copy", {"from": "large", "to": "again"})):
        for volume, key in (("full", server.key), (f"{owner}-full", boss)):
            refused(server.ask("POST", f"/v1/volumes/{volume}/files/{path}", content, key=key), "disk", "key")
    put = {"x-msb-file-path": base64.urlsafe_b64encode(b"f").decode().rstrip("=")}
    refused(server.ask("PUT", f"/v1/volumes/{owner}-full/files/content", b"x", key=boss, headers=put), "disk", "key")
    # What was made on this machine is in no budget.
    kept = server.ask("PUT", "/v1/volumes/shared/files/content", b"x", headers=put)
    assert kept.status == 200, kept.body


@pytest.mark.parametrize("option", ["--budget=memory", "--budget=cpu=2", "--key-budget=disk=x"])
def test_a_budget_that_is_none_is_refused(option: str) -> None:
    answer = msb("serve", "--insecure-http", option)
    assert answer.returncode == 2 and "budget" in answer.stderr


def test_silent_strangers_do_not_stop_a_client(server: Server) -> None:
    idle = []
    try:
        for _ in range(300):
            idle.append(socket.create_connection(("127.0.0.1", server.port)))
        idle[0].settimeout(within(20))
        # Those of one address have a share; the silent ones are closed after five seconds.
        assert idle[0].recv(1) == b""
        assert server.ask("GET", "/v1/sandboxes").status == 200
    finally:
        for connection in idle:
            connection.close()
