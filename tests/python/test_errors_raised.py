"""Each class of `errors` is raised where its condition occurs, or stands in the table of those that are not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from microsandbox import (
    AuthError,
    CloudBackend,
    CloudHttpError,
    InvalidConfigError,
    IoError,
    RateLimitedError,
    Sandbox,
    SandboxStopTimedOutError,
    StopTimeoutError,
    TlsError,
    UnsupportedOperationError,
    errors,
)
from microsandbox.testing import MemoryBackend, faults
from service import KEY, Service

ROOT = Path(__file__).resolve().parent.parent.parent
GUIDE = ROOT / "docs" / "guide" / "errors.md"
SOURCES = [
    *(ROOT / "rust" / "bindings" / "src").rglob("*.rs"),
    *(path for path in (ROOT / "python" / "microsandbox").glob("*.py") if path.name != "errors.py"),
]


def not_raised() -> set[str]:
    """The classes in the first column of the table of those that this version does not raise."""
    _, _, rest = GUIDE.read_text().partition("## Classes that this version does not raise")
    return set(re.findall(r"^\| `(\w+)` \|", rest, re.MULTILINE))


def raised() -> set[str]:
    """The classes that code of the package makes: through the table of the bindings, by `raise`, or as a warning."""
    text = "\n".join(path.read_text() for path in SOURCES)
    makes = r"plain\(Class::{0}\)|state\(Class::{0},|new\(py, Class::{0},|Class::{0}\.of\(|=> Class::{0},"
    makes += r"|(?:raise|return|error =) {0}\(|warn\(\w+, {0}\b"
    return {name for name in errors.__all__ if re.search(makes.format(name), text)}


def test_every_class_is_raised_or_in_the_table() -> None:
    values = {"PublishedSnapshotArtifact"}
    assert set(errors.__all__) - values - raised() == not_raised()
    assert not values & not_raised()


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_key_is_an_auth_error(service: Service, status: int) -> None:
    service.status = status
    service.body = {"error": {"code": "unauthorized", "message": "no"}}
    with pytest.raises(AuthError) as caught:
        await Sandbox.get("box", backend=service.backend())
    assert isinstance(caught.value, CloudHttpError)
    assert (caught.value.status, caught.value.error_code, caught.value.retryable) == (status, "unauthorized", False)
    assert "API key" in str(caught.value)


async def test_a_throttled_request_is_a_rate_limited_error(service: Service) -> None:
    service.status = 429
    service.headers = {"retry-after": "3600"}
    with pytest.raises(RateLimitedError) as caught:
        await Sandbox.get("box", backend=service.backend())
    assert (caught.value.status, caught.value.retryable) == (429, True)


async def test_an_unsigned_certificate_is_a_tls_error(tmp_path: Path) -> None:
    with Service(tls=tmp_path) as service, pytest.raises(TlsError) as caught:
        await Sandbox.get("box", backend=service.backend())
    assert "SSL_CERT_FILE" in str(caught.value)
    assert caught.value.__cause__ is not None
    assert not caught.value.retryable


async def test_a_certificate_that_is_given_is_trusted(tmp_path: Path) -> None:
    with Service(tls=tmp_path) as service:
        handle = await Sandbox.get("box", backend=service.backend(ca_certs=[tmp_path / "cert.pem"]))
        assert handle.name == "box"
        pem = (tmp_path / "cert.pem").read_bytes()
        assert (await Sandbox.get("box", backend=service.backend(ca_certs=[pem]))).name == "box"


async def test_an_absent_file_is_the_cause(tmp_path: Path) -> None:
    with pytest.raises(IoError) as caught:
        CloudBackend("https://example.test", KEY, ca_certs=[tmp_path / "absent.pem"])
    cause = caught.value.__cause__
    assert isinstance(cause, FileNotFoundError)
    assert (cause.errno, cause.strerror) == (2, "No such file or directory")


async def test_a_kill_whose_end_is_not_seen_is_a_stop_timeout() -> None:
    backend = MemoryBackend()
    sandbox = await Sandbox.create("box", image="host", backend=backend)
    faults(backend, kill=SandboxStopTimedOutError("box"))
    with pytest.raises(SandboxStopTimedOutError) as caught:
        await sandbox.kill()
    assert caught.value.name == "box"
    assert not isinstance(caught.value, StopTimeoutError)


async def test_an_agent_of_an_older_version_is_named() -> None:
    backend = MemoryBackend()
    sandbox = await Sandbox.create("box", image="host", backend=backend)
    faults(backend, exec=UnsupportedOperationError("core.new"))
    with pytest.raises(UnsupportedOperationError, match="restart the sandbox"):
        await sandbox.exec("true")


def test_destructors_at_interpreter_exit_raise_our_errors() -> None:
    program = """
import sys
from microsandbox import MicrosandboxError
from microsandbox.sync import Sandbox
from microsandbox.testing import MemoryBackend
class Holder:
    def __init__(self):
        self.box = Sandbox.create("box", image="host", backend=MemoryBackend())
    def __del__(self):
        try:
            self.box.fs.read("/absent")
        except MicrosandboxError as error:
            sys.stdout.write(type(error).__name__)
        except BaseException as error:
            sys.stdout.write("instead " + repr(error))
holder = Holder()
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout == "PathNotFoundError", run.stderr


def test_a_refused_value_names_the_class_of_its_argument() -> None:
    with pytest.raises(InvalidConfigError):
        CloudBackend("https://user:secret@example.test", KEY)
