"""Image registries on loopback: Debian's `docker-registry` in each of its settings, and one of the tests' own that misbehaves.

The real one is a process a test, ended by its pid; `skopeo` fills it from the archives that the tests make. The other one is a thread:
it serves what an archive holds, keeps a log of every request, and a test may answer any request in its place.
"""

from __future__ import annotations

import base64
import http.server
import json
import re
import shutil
import signal
import ssl
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from archives import Archive, directory, file, layer, symlink
from pace import within

USER, PASSWORD = "reader", "open-sesame-7"
# bcrypt of the password, the one kind that docker-registry knows.
HTPASSWD = f"{USER}:$2b$05$abcdefghijklmnopqrstuuYhafDARXY0KToV89BBvM5ig95pRHC2G\n"
REALM = "registry of the tests"


def needed(*programs: str) -> None:
    if missing := [program for program in programs if shutil.which(program) is None]:
        pytest.skip(f"{' and '.join(missing)} not installed (scripts/install-packages test)")


def run(*command: str | Path) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=within(60), check=False)
    assert done.returncode == 0, f"{command[0]}: {done.stderr}"
    return done.stdout


@dataclass
class Authority:
    """A certificate authority, and a certificate for the loopback names that it signed."""

    ca: Path
    certificate: Path
    key: Path

    @classmethod
    def make(cls, directory: Path) -> Authority:
        needed("openssl")
        directory.mkdir(exist_ok=True)
        made = cls(directory / "ca.pem", directory / "server.pem", directory / "server.key")
        ca_key, request, extensions = directory / "ca.key", directory / "server.csr", directory / "extensions"
        extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        of_ca = ("-subj", "/CN=CA of the tests", "-keyout", ca_key, "-out", made.ca)
        run("openssl", "req", "-x509", *curve, "-days", "2", *of_ca)
        run("openssl", "req", "-new", *curve, "-subj", "/CN=localhost", "-keyout", made.key, "-out", request)
        of_server = ("-in", request, "-CA", made.ca, "-CAkey", ca_key, "-CAcreateserial", "-extfile", extensions)
        run("openssl", "x509", "-req", "-days", "2", *of_server, "-out", made.certificate)
        return made


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass
class Tokens:
    """A token server: hands a signed token to whoever knows the password. `lifetime` is that of the next tokens, in seconds."""

    directory: Path
    lifetime: int = 300
    asked: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    @property
    def certificate(self) -> Path:
        return self.directory / "tokens.pem"

    def make(self) -> None:
        needed("openssl")
        of_key = ("-newkey", "rsa:2048", "-nodes", "-keyout", self.directory / "tokens.key")
        run("openssl", "req", "-x509", *of_key, "-days", "2", "-subj", "/CN=tokens", "-out", self.certificate)

    def token(self, query: dict[str, list[str]]) -> str:
        access = []
        for scope in query.get("scope", []):
            kind, name, actions = scope.split(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        now = int(time.time())
        chain = "".join(self.certificate.read_text().splitlines()[1:-1])
        claims = {"iss": "tests", "sub": USER, "aud": "registry", "access": access, "jti": "1"}
        # The registry allows a minute of difference between clocks beside what the token says.
        claims |= {"iat": now - 60, "nbf": now - 60, "exp": now + self.lifetime}
        header = {"typ": "JWT", "alg": "RS256", "x5c": [chain]}
        signed = f"{encoded(json.dumps(header).encode())}.{encoded(json.dumps(claims).encode())}"
        command = ["openssl", "dgst", "-sha256", "-sign", str(self.directory / "tokens.key")]
        signature = subprocess.run(command, input=signed.encode(), capture_output=True, check=True).stdout
        return f"{signed}.{encoded(signature)}"

    def answer(self, request: Request) -> Answer:
        sent = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        self.asked.append(request.headers)
        if request.headers.get("authorization") != f"Basic {sent}":
            return Answer(401, b'{"errors":[{"code":"UNAUTHORIZED"}]}')
        body = {"token": self.token(parse_qs(urlsplit(request.path).query)), "expires_in": self.lifetime}
        return Answer(200, json.dumps(body).encode(), {"content-type": "application/json"})


@dataclass
class Request:
    """One request, as the server saw it; names of headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    status: int = 0
    # Of the body of the answer.
    sent: int = 0


@dataclass
class Answer:
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    # The connection is cut after so many bytes of the body.
    cut_after: int | None = None
    # Seconds of silence after so many bytes of the body.
    stall: tuple[int, float] | None = None


Handle = Callable[[Request], Answer]


class HttpServer:
    """Serves in a thread of its own what `handle` answers."""

    def __init__(self, handle: Handle, authority: Authority | None = None) -> None:
        self.log: list[Request] = []
        self._ended = threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                pass

            def answer(self) -> None:
                request = Request(self.command, self.path, {k.lower(): v for k, v in self.headers.items()})
                outer.log.append(request)
                answer = handle(request)
                request.status = answer.status
                self.send_response(answer.status)
                for name, value in {"content-length": str(len(answer.body)), **answer.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "HEAD":
                    return
                outer.send(self, request, answer)

            do_GET = do_HEAD = do_POST = answer  # noqa: N815

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """A client that goes away in mid-answer is what some tests want."""

        self._server = Server(("127.0.0.1", 0), Handler)
        scheme = "http"
        if authority is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(authority.certificate, authority.key)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            scheme = "https"
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.url = f"{scheme}://{self.host}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def send(self, handler: http.server.BaseHTTPRequestHandler, request: Request, answer: Answer) -> None:
        end = len(answer.body) if answer.cut_after is None else answer.cut_after
        for start in range(0, end, 1 << 16):
            if answer.stall is not None and start >= answer.stall[0]:
                self._ended.wait(answer.stall[1])
            piece = answer.body[start : min(start + (1 << 16), end)]
            handler.wfile.write(piece)
            request.sent += len(piece)
        if answer.cut_after is not None:
            handler.close_connection = True

    def end(self) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(within(10))


@dataclass
class Content:
    """What an OCI archive holds: its manifest and blobs by digest."""

    blobs: dict[str, bytes]
    manifest: str

    @classmethod
    def of(cls, archive: Path) -> Content:
        blobs, index = {}, {}
        with tarfile.open(archive) as tar:
            for member in tar:
                read = tar.extractfile(member)
                data = read.read() if read is not None else b""
                name = member.name.removeprefix("./")
                if name == "index.json":
                    index = json.loads(data)
                elif name.startswith("blobs/"):
                    blobs[name.removeprefix("blobs/").replace("/", ":")] = data
        return cls(blobs, index["manifests"][0]["digest"])

    @property
    def layers(self) -> list[str]:
        return [layer["digest"] for layer in json.loads(self.blobs[self.manifest])["layers"]]


class FakeRegistry:
    """Serves the images of archives; `meddle(request)` may answer in its place, or leave it with None."""

    def __init__(self, authority: Authority | None = None) -> None:
        self.images: dict[str, Content] = {}
        self.meddle: Callable[[Request], Answer | None] = lambda request: None
        self.server = HttpServer(self._answer, authority)
        self.host = self.server.host

    @property
    def log(self) -> list[Request]:
        return self.server.log

    def add(self, archive: Path, name: str, tag: str = "latest") -> str:
        """The reference under which the image of the archive is served from now on."""
        self.images[f"{name}:{tag}"] = Content.of(archive)
        return f"{self.host}/{name}:{tag}"

    def asked(self, part: str, method: str | None = None) -> list[Request]:
        return [r for r in self.log if part in r.path and (method is None or r.method == method)]

    def content(self, digest: str) -> bytes | None:
        return next((image.blobs[digest] for image in self.images.values() if digest in image.blobs), None)

    def _answer(self, request: Request) -> Answer:
        return self.meddle(request) or self.honest(request)

    def honest(self, request: Request) -> Answer:
        """What a registry of the distribution specification answers, Range included."""
        path = urlsplit(request.path).path
        if path in ("/v2", "/v2/"):
            return Answer(200, b"{}")
        found = re.fullmatch(r"/v2/(.+)/(manifests|blobs)/([^/]+)", path)
        if found is None:
            return Answer(404, b'{"errors":[{"code":"NOT_FOUND"}]}')
        name, kind, which = found.groups()
        if kind == "manifests":
            image = self.images.get(f"{name}:{which}")
            digest = image.manifest if image else which
            body = self.content(digest)
            if body is None:
                return Answer(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')
            kind_of = json.loads(body).get("mediaType", "application/vnd.oci.image.manifest.v1+json")
            return Answer(200, body, {"content-type": kind_of, "docker-content-digest": digest})
        body = self.content(which)
        if body is None:
            return Answer(404, b'{"errors":[{"code":"BLOB_UNKNOWN"}]}')
        headers = {"content-type": "application/octet-stream", "accept-ranges": "bytes", "etag": f'"{which}"'}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
        if wanted is None:
            return Answer(200, body, headers)
        first = int(wanted[1])
        last = min(int(wanted[2] or len(body) - 1), len(body) - 1)
        if first > last:
            return Answer(416, b"", {"content-range": f"bytes */{len(body)}"})
        return Answer(206, body[first : last + 1], {**headers, "content-range": f"bytes {first}-{last}/{len(body)}"})

    def end(self) -> None:
        self.server.end()


@dataclass
class Registry:
    """A running `docker-registry`."""

    process: subprocess.Popen[str]
    host: str
    access_log: Path
    ca: Path | None = None
    credentials: tuple[str, str] | None = None
    tokens: Tokens | None = None
    token_server: HttpServer | None = None

    def push(self, archive: Path, name: str) -> str:
        """Copies the image of an OCI archive; its reference there."""
        needed("skopeo")
        options: list[str] = []
        if self.credentials:
            options += ["--dest-creds", ":".join(self.credentials)]
        if self.ca is None:
            options += ["--dest-tls-verify=false"]
        else:
            options += ["--dest-cert-dir", str(self.ca.parent / "trusted")]
        reference = f"{self.host}/{name}"
        run("skopeo", "--insecure-policy", "copy", *options, f"oci-archive:{archive}", f"docker://{reference}")
        if self.tokens:
            self.tokens.asked.clear()
        return reference

    def requests(self) -> list[tuple[str, str, int]]:
        """Method, path and status of every request for content since the last `forget`."""
        pattern = re.compile(r'"(\w+) (/v2/\S+) HTTP/[\d.]+" (\d+)')
        found = pattern.findall(self.access_log.read_text())
        return [(method, path, int(status)) for method, path, status in found if path != "/v2/"]

    def forget(self) -> None:
        self.access_log.write_text("")

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(within(10))
        finally:
            self.process.kill()
            self.process.wait()
            if self.token_server:
                self.token_server.end()


def start(directory: Path, kind: str = "plain", upstream: str | None = None) -> Registry:
    """`docker-registry` on a free port; `kind` is plain, basic, token or tls. With `upstream` it is a pull-through mirror."""
    needed("docker-registry")
    directory.mkdir(parents=True)
    settings: dict[str, object] = {
        "version": "0.1",
        "log": {"level": "info", "formatter": "text"},
        "storage": {"filesystem": {"rootdirectory": str(directory / "store")}},
    }
    listen: dict[str, object] = {"addr": "127.0.0.1:0", "secret": "of the tests"}
    ca, credentials, tokens, token_server = None, None, None, None
    if kind == "basic":
        (directory / "htpasswd").write_text(HTPASSWD)
        settings["auth"] = {"htpasswd": {"realm": REALM, "path": str(directory / "htpasswd")}}
        credentials = (USER, PASSWORD)
    elif kind == "token":
        tokens = Tokens(directory)
        tokens.make()
        token_server = HttpServer(tokens.answer)
        tokens.url = token_server.url
        bundle = {"service": "registry", "issuer": "tests", "rootcertbundle": str(tokens.certificate)}
        settings["auth"] = {"token": {"realm": f"{token_server.url}/token", **bundle}}
        credentials = (USER, PASSWORD)
    elif kind == "tls":
        authority = Authority.make(directory / "tls")
        ca = authority.ca
        (ca.parent / "trusted").mkdir()
        shutil.copy(ca, ca.parent / "trusted" / "ca.crt")
        listen["tls"] = {"certificate": str(authority.certificate), "key": str(authority.key)}
    settings["http"] = listen
    if upstream is not None:
        settings["proxy"] = {"remoteurl": upstream}
    # A JSON document is a YAML document.
    (directory / "config.yml").write_text(json.dumps(settings))
    log, notes = directory / "access.log", directory / "notes.log"
    # Appending: `forget` shortens the file, and what is written later begins at its new end.
    with log.open("a") as out, notes.open("w") as err:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(directory / "config.yml")],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            text=True,
        )
    deadline = time.monotonic() + within(20)
    while (listening := re.search(r"listening on ([\d.]+:\d+)", notes.read_text())) is None:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            if token_server:
                token_server.end()
            pytest.fail(f"docker-registry does not start:\n{notes.read_text()}")
        time.sleep(0.01)
    return Registry(process, listening[1], log, ca, credentials, tokens, token_server)


Start = Callable[..., Registry]


@pytest.fixture
def start_registry(tmp_path: Path) -> Iterator[Start]:
    """Starts real registries, which end with the test."""
    started: list[Registry] = []

    def begin(kind: str = "plain", upstream: str | None = None) -> Registry:
        started.append(start(tmp_path / f"registry-{len(started)}", kind, upstream))
        return started[-1]

    yield begin
    for registry in started:
        registry.end()


@pytest.fixture
def registry(start_registry: Start) -> Registry:
    """A real registry that asks for nothing, over plain HTTP."""
    return start_registry()


@pytest.fixture
def fake_registry() -> Iterator[FakeRegistry]:
    """A registry of the tests' own, over plain HTTP, that does what the test says."""
    registry = FakeRegistry()
    yield registry
    registry.end()


BUSYBOX = Path("/bin/busybox")
APPLETS = ("cat", "echo", "false", "ls", "sh", "sleep", "true")


@pytest.fixture(scope="session")
def busybox_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image of Debian's static busybox in three layers."""
    needed("busybox")
    program = file("bin/busybox", BUSYBOX.read_bytes(), mode=0o755)
    links = [symlink(f"bin/{name}", "busybox") for name in APPLETS]
    layers = [layer([directory("bin"), directory("etc"), program, *links]), layer([file("etc/middle", b"middle\n")])]
    layers.append(layer([directory("tmp", 0o1777), file("etc/top", b"top\n")]))
    archive = Archive(layers, config={"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"], "WorkingDir": "/"})
    return archive.write(tmp_path_factory.mktemp("busybox") / "busybox.oci.tar")
