"""A service for the cloud client that answers as each test says."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from microsandbox import CloudBackend

KEY = "msb_test_hunter2hunter2"
ANSWER = {
    "id": "11111111-2222-3333-4444-555555555555",
    "org_id": "11111111-2222-3333-4444-555555555555",
    "name": "box",
    "status": "running",
    "ephemeral": False,
    "created_at": "2026-01-01T00:00:00Z",
    "spec": {"image": "alpine"},
}


#: A key and a certificate for 127.0.0.1 that is valid for a century and that no trust store has.
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBnDCCAUOgAwIBAgIUJALg9w7cdjcrFN/ryAqXz+oyIuAwCgYIKoZIzj0EAwIw
HDEaMBgGA1UEAwwRbWljcm9zYW5kYm94IHRlc3QwIBcNMjYxMTMwMDg1NDQzWhgP
MjEyNjExMDYwODU0NDNaMBwxGjAYBgNVBAMMEW1pY3Jvc2FuZGJveCB0ZXN0MFkw
EwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEtZ/XcVDBGh+Ke1SPd08A6zeIsGJotmhN
/FGHE6t0YtxPwhZ2XfO2dpBnLn1ttBqTy3x72QiazC2Ao8jLe4i/xqNhMF8wHQYD
VR0OBBYEFEmLZlBw0aVKZnpONRC8T6W+qY6sMB8GA1UdIwQYMBaAFEmLZlBw0aVK
ZnpONRC8T6W+qY6sMA8GA1UdEQQIMAaHBH8AAAEwDAYDVR0TAQH/BAIwADAKBggq
hkjOPQQDAgNHADBEAiAR4+rKUCcRjqp3yxFYfYqElFOzR5+5k391aNeCfQ+lKAIg
clFR1taf2XlV+Cio9eBaVcuUPndyV4SBRYuCmsS6h3M=
-----END CERTIFICATE-----
"""
PRIVATE_KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg1FdKcDYgobOhNdZG
goWOt130PpOuvdx4JrK27L+BUsGhRANCAAS1n9dxUMEaH4p7VI93TwDrN4iwYmi2
aE38UYcTq3Ri3E/CFnZd87Z2kGcufW20GpPLfHvZCJrMLYCjyMt7iL/G
-----END PRIVATE KEY-----
"""


class Service:
    """Answers everything with one status and body; remembers what came. With a directory for `tls`, over HTTPS."""

    def __init__(self, tls: Path | None = None) -> None:
        self.status = 200
        self.body: Any = ANSWER
        #: What is said instead of `body`, made anew for each request.
        self.answer: Callable[[], Any] = lambda: self.body
        self.delay = 0.0
        self.headers: dict[str, str] = {}
        self.seen: list[tuple[str, str, Any]] = []
        self.agents: list[str | None] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                length = int(self.headers.get("content-length", 0))
                body = self.rfile.read(length)
                service.agents.append(self.headers.get("user-agent"))
                service.seen.append((self.command, self.path, json.loads(body) if body else None))
                time.sleep(service.delay)
                said = json.dumps(service.answer()).encode()
                self.send_response(service.status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(said)))
                for name, value in service.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(said)

            do_GET = do_POST = do_DELETE = answer  # noqa: N815 - the names are the library's

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.scheme = "http"
        if tls is not None:
            (tls / "cert.pem").write_text(CERTIFICATE)
            (tls / "key.pem").write_text(PRIVATE_KEY)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls / "cert.pem", tls / "key.pem")
            # The handshake belongs to the thread of a request, and a client that refuses the certificate is expected.
            self.server.socket = context.wrap_socket(
                self.server.socket, server_side=True, do_handshake_on_connect=False
            )
            self.server.handle_error = lambda *_: None  # type: ignore[method-assign]
            self.scheme = "https"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def backend(self, **options: Any) -> CloudBackend:
        return CloudBackend(self.url, KEY, **options)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(10)

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as service:
        yield service
