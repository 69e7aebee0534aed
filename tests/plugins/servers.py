"""`msb serve` as a process of its own: a free port, the test's home, a key; ended by SIGTERM."""

from __future__ import annotations

import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pace import within

MSB = str(Path(sys.executable).with_name("msb"))
HOST = {"type": "oci", "reference": "host"}
# Every scope but `admin`, with which a key sees what it does not own.
SCOPES = [
    "sandboxes:read",
    "sandboxes:write",
    "logs:read",
    "exec",
    "files:read",
    "files:write",
    "volumes:read",
    "volumes:write",
    "metrics",
]
# What the tests' own servers offer: they run where no KVM is, and with the system of this machine as the image.
OFFER = ["--isolation", "container", "--allow-host-image"]


def on(home: Path) -> dict[str, str]:
    """The variables with which a command works on this home."""
    return {"MSB_HOME": str(home), "MSB_CONFIG_PATH": str(home / "config.json")}


def msb(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """One run of the command, to its end."""
    environ = {**os.environ, **environment}
    return subprocess.run([MSB, *arguments], env=environ, capture_output=True, text=True, timeout=within(60))


def new_key(name: str, *flags: str, **environment: str) -> str:
    made = msb("serve", "key", "create", name, *flags, **environment)
    assert made.returncode == 0, made.stderr
    return made.stdout.splitlines()[-1]


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        code: str = self.json["error"]["code"]
        return code


@dataclass
class Server:
    """A running server and a client for it."""

    process: subprocess.Popen[str]
    url: str
    key: str
    access_log: Path
    notes: Path
    trust: ssl.SSLContext | None = field(default=None, repr=False)

    @property
    def port(self) -> int:
        port = urlsplit(self.url).port
        assert port
        return port

    def connection(self, host: str = "127.0.0.1") -> http.client.HTTPConnection:
        if self.url.startswith("https:"):
            return http.client.HTTPSConnection(host, self.port, timeout=within(60), context=self.trust)
        return http.client.HTTPConnection(host, self.port, timeout=within(60))

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        key: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        sent = {"authorization": f"Bearer {self.key if key is None else key}", **(headers or {})}
        data = None
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            sent.setdefault("content-type", "application/json")
        connection = self.connection()
        try:
            connection.request(method, path, body=data, headers=sent)
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def create(self, name: str, **options: object) -> Any:
        body = {"name": name, "image": HOST, "resources": {"vcpus": 1, "memory_mib": 128}, **options}
        made = self.ask("POST", "/v1/sandboxes?start=true&wait_for=running&wait_timeout=60", body)
        assert made.status == 200, made.body
        return made.json

    def remove(self, name: str) -> None:
        """Stops and removes it."""
        self.ask("POST", f"/v1/sandboxes/by-name/{name}/stop", {})
        deadline = time.monotonic() + within(30)
        while (gone := self.ask("DELETE", f"/v1/sandboxes/by-name/{name}")).status == 409:
            assert time.monotonic() < deadline, gone.body
            time.sleep(0.02)
        assert gone.status in (200, 404), gone.body

    def remove_all(self) -> None:
        while found := self.ask("GET", "/v1/sandboxes?limit=100").json["data"]:
            for sandbox in found:
                self.remove(sandbox["name"])

    def end(self) -> int:
        """Asks it to end; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(within(30))
        finally:
            self.process.kill()
            self.process.wait()
            if self.process.stdout:
                self.process.stdout.close()


def launch(
    home: Path,
    logs: Path,
    name: str,
    *flags: str,
    offer: Sequence[str] = OFFER,
    owner: Sequence[str] = (),
    **environment: str,
) -> Server:
    """A server on this home with a key of every scope but `admin`; without a flag about TLS it speaks plain HTTP."""
    environment = {**on(home), **environment}
    key = new_key(name, *owner, *(word for scope in SCOPES for word in ("--scope", scope)), **environment)
    log, notes = logs / f"access-{name}.log", logs / f"notes-{name}.log"
    transport = [] if any("tls" in flag for flag in flags) else ["--insecure-http"]
    command = [MSB, "serve", "--listen", "127.0.0.1:0", "--access-log", str(log), *transport, *offer, *flags]
    with notes.open("w") as err:
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
        )
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line.startswith("listening on "):
        process.kill()
        process.communicate()
        pytest.fail(f"the server does not start: {line!r}\n{notes.read_text()}")
    server = Server(process, line.removeprefix("listening on "), key, log, notes)
    if server.url.startswith("https:") and "--tls-self-signed" in flags:
        server.trust = ssl.create_default_context(cafile=str(home / "serve" / "cert.pem"))
    return server


Serve = Callable[..., Server]


@pytest.fixture
def serve(home: Path, tmp_path: Path) -> Iterator[Serve]:
    """Starts servers on the test's home."""
    started: list[Server] = []

    def start(*flags: str, offer: Sequence[str] = OFFER) -> Server:
        # A later server of the test is a client's second way to the same sandboxes.
        owner = ["--same-owner-as", "fixture-0"] if started else []
        started.append(launch(home, tmp_path, f"fixture-{len(started)}", *flags, offer=offer, owner=owner))
        return started[-1]

    yield start
    for server in started:
        if server.process.poll() is None:
            server.remove_all()
        assert server.end() == 0, server.notes.read_text()


@pytest.fixture
def server(serve: Serve) -> Server:
    """A server over plain HTTP on a loopback port, with a key of every scope."""
    return serve()
