"""The tree of exceptions."""

from __future__ import annotations

import builtins
import re

import pytest
from microsandbox import errors
from microsandbox.errors import (
    FilesystemError,
    JobError,
    MicrosandboxError,
    PathNotFoundError,
    SnapshotSourceRecoveryError,
    UnsupportedError,
)

CODES = {
    "MicrosandboxError": "microsandbox-error",
    "InvalidConfigError": "invalid-config",
    "NoDefaultCommandError": "no-default-command",
    "CloudHttpError": "cloud-http",
    "SandboxNotFoundError": "sandbox-not-found",
    "SandboxNotRunningError": "sandbox-not-running",
    "SandboxAlreadyExistsError": "sandbox-already-exists",
    "SandboxStillRunningError": "sandbox-still-running",
    "ExecTimeoutError": "exec-timeout",
    "ExecFailedError": "exec-failed",
    "FilesystemError": "filesystem-error",
    "PathNotFoundError": "path-not-found",
    "VolumeNotFoundError": "volume-not-found",
    "ImageNotFoundError": "image-not-found",
    "ImageInUseError": "image-in-use",
    "ImagePullFailedError": "image-pull-failed",
    "NetworkPolicyError": "network-policy-error",
    "SecretViolationError": "secret-violation",
    "TlsError": "tls-error",
    "IoError": "io-error",
    "MetricsDisabledError": "metrics-disabled",
    "MetricsUnavailableError": "metrics-unavailable",
    "UnsupportedOperationError": "unsupported-operation",
    "UnsupportedError": "unsupported",
    "SnapshotMigrationError": "snapshot-migration",
    "RuntimeNotInstalledError": "runtime-not-installed",
    "RuntimeIncompleteError": "runtime-incomplete",
    "SandboxReplacedError": "sandbox-replaced",
    "SandboxStopTimedOutError": "sandbox-stop-timed-out",
    "StopTimeoutError": "stop-timeout",
    "SnapshotSourceRecoveryError": "snapshot-source-recovery",
    "BootStartError": "boot-start",
}


def classes() -> dict[str, type[MicrosandboxError]]:
    found = {name: getattr(errors, name) for name in errors.__all__}
    return {name: value for name, value in found.items() if issubclass(value, MicrosandboxError)}


def drawn() -> dict[str, tuple[str, str | None]]:
    """Class to (parent, builtin) as the docstring draws them."""
    tree: dict[str, tuple[str, str | None]] = {}
    stack: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.fullmatch(r"    ([│├└─ ]*)(\w+)(?: +(\w+))?", line)
        if match is None:
            continue
        depth, name, builtin = len(match[1]) // 4, match[2], match[3]
        while stack and stack[-1][0] >= depth:
            stack.pop()
        tree[name] = (stack[-1][1] if stack else "Exception", builtin)
        stack.append((depth, name))
    return tree


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    tree = drawn()
    assert set(tree) == set(classes())
    for name, (parent, builtin) in tree.items():
        bases = [base.__name__ for base in classes()[name].__bases__]
        expected = ["Exception"] if name == "MicrosandboxError" else [parent, *([builtin] if builtin else [])]
        assert bases == expected, name
        assert builtin is None or hasattr(builtins, builtin)


def test_codes_are_those_of_the_surface_and_unique() -> None:
    found = {name: value.code for name, value in classes().items() if name != "JobError"}
    assert {name: found[name] for name in CODES} == CODES
    assert len(set(found.values())) == len(found)


@pytest.mark.parametrize("name", sorted(set(classes()) - {"JobError"}))
def test_one_message_is_the_text(name: str) -> None:
    error = classes()[name]("what: why")
    assert str(error) == "what: why"
    assert isinstance(error, MicrosandboxError)


def test_a_builtin_clause_catches() -> None:
    with pytest.raises(TimeoutError):
        raise errors.ExecTimeoutError("x")
    with pytest.raises(FileNotFoundError):
        raise PathNotFoundError("x")
    with pytest.raises(FilesystemError):
        raise PathNotFoundError("x")
    with pytest.raises(NotImplementedError):
        raise UnsupportedError("x")


def test_an_errno_does_not_change_the_text() -> None:
    error = PathNotFoundError("read /x: no such file")
    error.errno = 2
    assert str(error) == "read /x: no such file"


def test_errors_with_arguments_of_their_own() -> None:
    job = JobError("lost", "gone", job_id="1")
    assert (job.code, str(job), job.job_id) == ("lost", "gone", "1")
    artifact = {"kind": "archive", "path": "/a", "snapshot_id": "s", "digest": "sha256:0"}
    recovery = SnapshotSourceRecoveryError("x", source_sandbox="box", artifact=artifact)
    assert recovery.artifact is not None
    assert recovery.artifact.path == "/a"
    with pytest.raises(AttributeError):
        recovery.artifact.path = "/b"
