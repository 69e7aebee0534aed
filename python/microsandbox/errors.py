"""Every exception of the package.

Each has a stable `code` and, where one fits, a builtin base, so that `except TimeoutError` and the like work::

    MicrosandboxError                 Exception
    ├── InvalidConfigError            ValueError
    │   └── VolumeInUseError
    ├── NoDefaultCommandError         ValueError
    ├── CloudHttpError                ConnectionError
    │   ├── RateLimitedError
    │   └── AuthError
    ├── SandboxNotFoundError          LookupError
    ├── SandboxNotRunningError        RuntimeError
    │   └── AgentLostError
    ├── SandboxAlreadyExistsError     FileExistsError
    ├── SandboxStillRunningError      RuntimeError
    ├── SandboxReplacedError          RuntimeError
    ├── SandboxStopTimedOutError      TimeoutError
    │   └── StopTimeoutError
    ├── ExecTimeoutError              TimeoutError
    ├── ExecFailedError               OSError
    │   └── OutputLimitError
    ├── FilesystemError               OSError
    │   └── PathNotFoundError         FileNotFoundError
    ├── VolumeNotFoundError           LookupError
    ├── VolumeAlreadyExistsError      FileExistsError
    ├── ImageNotFoundError            LookupError
    ├── ImageInUseError               RuntimeError
    ├── ImagePullFailedError          OSError
    ├── NetworkPolicyError            ValueError
    ├── SecretViolationError          PermissionError
    ├── TlsError                      OSError
    ├── IoError                       OSError
    │   ├── ProtocolError
    │   ├── GuestStalledError
    │   ├── ResourceExhaustedError
    │   └── StateError
    │       ├── StateBusyError
    │       ├── StateReadOnlyError
    │       ├── StateCorruptError
    │       └── StateLostError
    ├── MetricsDisabledError          RuntimeError
    ├── MetricsUnavailableError       RuntimeError
    ├── UnsupportedOperationError     NotImplementedError
    ├── UnsupportedError              NotImplementedError
    ├── IsolationUnavailableError     RuntimeError
    ├── InvalidStateError             RuntimeError
    ├── BootStartError                RuntimeError
    ├── PatchFailedError              RuntimeError
    ├── SnapshotMigrationError        RuntimeError
    ├── SnapshotNotFoundError         LookupError
    ├── SnapshotAlreadyExistsError    FileExistsError
    ├── SnapshotSourceRecoveryError   RuntimeError
    ├── RuntimeNotInstalledError      FileNotFoundError
    ├── RuntimeIncompleteError        RuntimeError
    └── JobError                      RuntimeError

Messages say what was attempted, on what, why it failed and what to do next; fields repeat it as data.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._enums import SandboxStatus
    from ._microsandbox import ExecOutput


class MicrosandboxError(Exception):
    """Base of all; raised itself for what has no better class. `retryable`: the same call may succeed later.

    Example: `except MicrosandboxError as error: print(error.code, error)`
    """

    code: str = "microsandbox-error"
    retryable: bool = False

    def __init__(self, message: str = "") -> None:
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        # Not by calling the class again, as exceptions do: a class may want other arguments, and fields are set later.
        fields = dict(self.__dict__)
        if isinstance(self, OSError):
            # These are no entries of the dictionary.
            names = ("errno", "strerror", "filename", "filename2")
            fields |= {name: value for name in names if (value := getattr(self, name)) is not None}
        return _again, (type(self), self.args, fields)


def _again(kind: type[MicrosandboxError], arguments: tuple[Any, ...], fields: dict[str, Any]) -> MicrosandboxError:
    """An error that came from another process, or a copy."""
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    for name, value in fields.items():
        setattr(error, name, value)
    return error


class InvalidConfigError(MicrosandboxError, ValueError):
    """A configuration, a name or a backend's settings were refused.

    Example: `except InvalidConfigError as error: print(error)`
    """

    code = "invalid-config"


class VolumeInUseError(InvalidConfigError):
    """The volume is held by a live sandbox, `holder`.

    Example: `except VolumeInUseError as error: print(error)`
    """

    code = "volume-in-use"
    name: str = ""
    holder: str = ""


class NoDefaultCommandError(MicrosandboxError, ValueError):
    """The image has neither an entrypoint nor a command.

    Example: `except NoDefaultCommandError: await sb.shell("echo no command of its own")`
    """

    code = "no-default-command"
    image: str = ""


class CloudHttpError(MicrosandboxError, ConnectionError):
    """A request to the service failed; `status` is its HTTP status, `error_code` its own word for it.

    Example: `except CloudHttpError as error: print(error.status, error.error_code)`
    """

    code = "cloud-http"
    status: int | None = None
    error_code: str | None = None
    message: str = ""


class RateLimitedError(CloudHttpError):
    """The service answered 429 (too many requests) beyond the retry budget.

    Example: `except RateLimitedError: await asyncio.sleep(1)`
    """

    code = "rate-limited"


class AuthError(CloudHttpError):
    """The service refused the credentials: it answered 401 or 403.

    Example: `except AuthError as error: print("look at MSB_API_KEY:", error)`
    """

    code = "auth"


class SandboxNotFoundError(MicrosandboxError, LookupError):
    """No sandbox has this name.

    Example: `except SandboxNotFoundError as error: print("no sandbox", error.name)`
    """

    code = "sandbox-not-found"
    name: str = ""


class SandboxNotRunningError(MicrosandboxError, RuntimeError):
    """The call needs a running sandbox; `status` is what it has instead.

    Example: `except SandboxNotRunningError as error: print(error.name, error.status)`
    """

    code = "sandbox-not-running"
    name: str = ""
    status: SandboxStatus | None = None


class AgentLostError(SandboxNotRunningError):
    """The agent is gone or silent; the sandbox may still need a stop.

    Example: `except AgentLostError: await handle.wait_until_stopped()`
    """

    code = "agent-lost"
    reason: str = ""


class SandboxAlreadyExistsError(MicrosandboxError, FileExistsError):
    """The name is taken and `replace` was not asked for.

    Example: `except SandboxAlreadyExistsError as error: sb = await Sandbox.start(error.name)`
    """

    code = "sandbox-already-exists"
    name: str = ""


class SandboxStillRunningError(MicrosandboxError, RuntimeError):
    """The call needs a stopped sandbox.

    Example: `except SandboxStillRunningError as error: await (await Sandbox.get(error.name)).stop()`
    """

    code = "sandbox-still-running"
    name: str = ""


class SandboxReplacedError(MicrosandboxError, RuntimeError):
    """The name now means another sandbox than the one this object was made for.

    Example: `except SandboxReplacedError as error: handle = await Sandbox.get(error.name)`
    """

    code = "sandbox-replaced"
    name: str = ""


class SandboxStopTimedOutError(MicrosandboxError, TimeoutError):
    """The end of a sandbox was not observed within `timeout` seconds after a kill.

    Example: `except SandboxStopTimedOutError: await sb.kill()`
    """

    code = "sandbox-stop-timed-out"
    name: str = ""
    timeout: float = 0.0


class StopTimeoutError(SandboxStopTimedOutError):
    """`stop_with_timeout` passed its timeout.

    Example: `except StopTimeoutError as error: print(error.name, error.timeout)`
    """

    code = "stop-timeout"


class ExecTimeoutError(MicrosandboxError, TimeoutError):
    """`timeout=` (seconds) passed; the process tree was killed. `output` is what it wrote until then, if known.

    Example: `except ExecTimeoutError as error: print(error.output)`
    """

    code = "exec-timeout"
    timeout: float = 0.0
    output: ExecOutput | None = None


class ExecFailedError(MicrosandboxError, OSError):
    """The program could not be started; `kind` says why (`not_found`, `permission_denied`, `bad_cwd` …).

    Example: `except ExecFailedError as error: print(error.kind, error.errno_name)`
    """

    code = "exec-failed"
    kind: str = "other"
    message: str = ""
    errno_name: str | None = None
    stage: str | None = None


class OutputLimitError(ExecFailedError):
    """Collected output, or log entries, passed their bound; pass `max_output_bytes` or `tail`, or read a stream.

    Example: `except OutputLimitError as error: print(error.limit)`
    """

    code = "output-limit"
    kind = "output_limit"
    truncated: bool = True
    limit: int = 0
    kept: int = 0
    dropped: int = 0


class FilesystemError(MicrosandboxError, OSError):
    """An operation on a guest file failed; `kind` is a name of ours or the errno's.

    Example: `except FilesystemError as error: print(error.path, error.kind, error.errno)`
    """

    code = "filesystem-error"
    operation: str = ""
    path: str = ""
    kind: str = ""
    message: str = ""


class PathNotFoundError(FilesystemError, FileNotFoundError):
    """A guest path does not exist.

    Example: `except PathNotFoundError as error: print(error.path)`
    """

    code = "path-not-found"


class VolumeNotFoundError(MicrosandboxError, LookupError):
    """No volume has this name.

    Example: `except VolumeNotFoundError: await Volume.create("data")`
    """

    code = "volume-not-found"
    name: str = ""


class VolumeAlreadyExistsError(MicrosandboxError, FileExistsError):
    """The volume's name is taken.

    Example: `except VolumeAlreadyExistsError: handle = await Volume.get("data")`
    """

    code = "volume-already-exists"
    name: str = ""


class ImageNotFoundError(MicrosandboxError, LookupError):
    """Neither the store nor a registry has this image.

    Example: `except ImageNotFoundError: await Image.load("debian.tar", tag="debian:12")`
    """

    code = "image-not-found"
    reference: str = ""


class ImageInUseError(MicrosandboxError, RuntimeError):
    """A sandbox uses the image; remove that first, or force.

    Example: `except ImageInUseError: await Image.remove("debian:12", force=True)`
    """

    code = "image-in-use"
    reference: str = ""
    holder: str = ""


class ImagePullFailedError(MicrosandboxError, OSError):
    """An image could not be fetched or unpacked; `kind`: UnsafeEntry, LimitExceeded, DigestMismatch, CorruptLayer,
    Denied, RateLimited, Stalled, Transport, or Unsigned.

    Example: `except ImagePullFailedError as error: print(error.kind)`
    """

    code = "image-pull-failed"
    kind: str = ""


class NetworkPolicyError(MicrosandboxError, ValueError):
    """A network rule cannot be built.

    Example: `except NetworkPolicyError as error: print(error)`
    """

    code = "network-policy-error"


class SecretViolationError(MicrosandboxError, PermissionError):
    """A secret was about to leave for a host that may not have it.

    Example: `except SecretViolationError as error: print(error)`
    """

    code = "secret-violation"


class TlsError(MicrosandboxError, OSError):
    """The certificate of a service was refused, or the handshake failed; `__cause__` says why.

    Example: `except TlsError as error: print(error)`
    """

    code = "tls-error"


class IoError(MicrosandboxError, OSError):
    """Input or output failed on the host.

    Example: `except IoError as error: print("on this machine:", error)`
    """

    code = "io-error"


class ProtocolError(IoError):
    """The other side of the agent's channel broke the rules; `what` says which.

    Example: `except ProtocolError as error: print("the other side broke its protocol:", error)`
    """

    code = "protocol-error"
    name: str = ""
    what: str = ""


class GuestStalledError(IoError):
    """The guest stopped consuming input for `timeout` seconds.

    Example: `except GuestStalledError: await sb.kill()`
    """

    code = "guest-stalled"
    name: str = ""
    timeout: float = 0.0


class ResourceExhaustedError(IoError):
    """Descriptors, processes, memory, disk or slots are used up; `resource` says which.

    Example: `except ResourceExhaustedError as error: print(error.resource)`
    """

    code = "resource-exhausted"
    resource: str = ""


class StateError(IoError):
    """The state database failed; `path` is its file.

    Example: `except StateError as error: print(error.path)`
    """

    code = "state-error"
    path: str = ""


class StateBusyError(StateError):
    """Another process holds the database for too long.

    Example: `except StateBusyError as error: print("another process has", error.path)`
    """

    code = "state-busy"


class StateReadOnlyError(StateError):
    """The database cannot be written.

    Example: `except StateReadOnlyError as error: print(error.path, "cannot be written to")`
    """

    code = "state-read-only"


class StateCorruptError(StateError):
    """The database is damaged.

    Example: `except StateCorruptError as error: print("restore a copy of", error.path)`
    """

    code = "state-corrupt"


class StateLostError(StateError):
    """The database was replaced or removed while open.

    Example: `except StateLostError as error: print(error.path, "is gone")`
    """

    code = "state-lost"


class MetricsDisabledError(MicrosandboxError, RuntimeError):
    """Sampling is switched off for this sandbox.

    Example: `except MetricsDisabledError: print("sampling is switched off")`
    """

    code = "metrics-disabled"
    name: str = ""


class MetricsUnavailableError(MicrosandboxError, RuntimeError):
    """The sandbox does not run, or has no sample yet.

    Example: `except MetricsUnavailableError as error: print(error)`
    """

    code = "metrics-unavailable"
    name: str = ""
    reason: str = ""


class UnsupportedOperationError(MicrosandboxError, NotImplementedError):
    """The agent of the running sandbox is older than this package and does not know the call; restart the sandbox.

    Example: `except UnsupportedOperationError as error: print(error)`
    """

    code = "unsupported-operation"


class UnsupportedError(MicrosandboxError, NotImplementedError):
    """The backend lacks `operation`; `hint` says when it comes or what to use instead.

    Example: `except UnsupportedError as error: print(error.operation, error.hint)`
    """

    code = "unsupported"
    operation: str = ""
    hint: str = ""

    @property
    def feature(self) -> str:
        """The same as `operation`."""
        return self.operation

    @property
    def available_when(self) -> str:
        """The same as `hint`."""
        return self.hint


class IsolationUnavailableError(MicrosandboxError, RuntimeError):
    """This host cannot give the isolation that was `demanded`; nothing was created.

    Example: `except IsolationUnavailableError as error: print(error.reason, error.hint)`
    """

    code = "isolation-unavailable"
    demanded: str = ""
    reason: str = ""
    hint: str = ""


class InvalidStateError(MicrosandboxError, RuntimeError):
    """The object cannot be used in this state or process (after a fork, for example).

    Example: `except InvalidStateError as error: print(error)`
    """

    code = "invalid-state"


class BootStartError(MicrosandboxError, RuntimeError):
    """The sandbox ended before its agent answered; `stage`, `errno`, `hint` and `log_tail` say why.

    Example: `except BootStartError as error: print(error.stage, error.hint, error.log_tail)`
    """

    code = "boot-start"
    name: str = ""
    stage: str = "other"
    step: str = ""
    errno: int | None = None
    message: str = ""
    hint: str = ""
    log_tail: str = ""


class PatchFailedError(MicrosandboxError, RuntimeError):
    """A change of the root file system before the first program failed; no sandbox is left. `path`, `message`.

    Example: `except PatchFailedError as error: print(error.path, error)`
    """

    code = "patch-failed"
    path: str = ""
    message: str = ""


class SnapshotMigrationError(MicrosandboxError, RuntimeError):
    """An old snapshot cannot be converted.

    Example: `except SnapshotMigrationError as error: print(error)`
    """

    code = "snapshot-migration"


class SnapshotNotFoundError(MicrosandboxError, LookupError):
    """No snapshot has this name or digest.

    Example: `except SnapshotNotFoundError as error: print(error)`
    """

    code = "snapshot-not-found"


class SnapshotAlreadyExistsError(MicrosandboxError, FileExistsError):
    """The snapshot's name is taken.

    Example: `except SnapshotAlreadyExistsError as error: print(error)`
    """

    code = "snapshot-already-exists"


class PublishedSnapshotArtifact:
    """A snapshot that was written although its source could not be brought back. Not an exception.

    Example: `except SnapshotSourceRecoveryError as error: print(error.artifact)`
    """

    __slots__ = ("digest", "kind", "path", "snapshot_id")

    kind: str
    path: str
    snapshot_id: str
    digest: str

    def __init__(self, kind: str, path: str, snapshot_id: str, digest: str) -> None:
        for name, value in (("kind", kind), ("path", path), ("snapshot_id", snapshot_id), ("digest", digest)):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"PublishedSnapshotArtifact is frozen: {name} cannot be set")

    def __reduce__(self) -> tuple[Any, ...]:
        return PublishedSnapshotArtifact, (self.kind, self.path, self.snapshot_id, self.digest)

    def __repr__(self) -> str:
        return f"PublishedSnapshotArtifact(kind={self.kind!r}, path={self.path!r}, snapshot_id={self.snapshot_id!r})"


class SnapshotSourceRecoveryError(MicrosandboxError, RuntimeError):
    """After a snapshot the source sandbox could not be brought back; `artifact` is what was written, if anything.

    Example: `except SnapshotSourceRecoveryError as error: print(error.artifact)`
    """

    code = "snapshot-source-recovery"

    def __init__(
        self,
        message: str = "",
        *,
        source_sandbox: str = "",
        checkpoint_id: str = "",
        checkpoint_root: str = "",
        checkpoint_path: str = "",
        artifact: dict[str, Any] | None = None,
        detail: str = "",
        publication_error: str | None = None,
    ) -> None:
        super().__init__(message or detail)
        self.source_sandbox = source_sandbox
        self.checkpoint_id = checkpoint_id
        self.checkpoint_root = checkpoint_root
        self.checkpoint_path = checkpoint_path
        self.artifact = PublishedSnapshotArtifact(**artifact) if artifact else None
        self.detail = detail
        self.publication_error = publication_error


class RuntimeNotInstalledError(MicrosandboxError, FileNotFoundError):
    """The host runtime is absent.

    Example: `except RuntimeNotInstalledError: await install_runtime()`
    """

    code = "runtime-not-installed"


class RuntimeIncompleteError(MicrosandboxError, RuntimeError):
    """Part of the host runtime is absent.

    Example: `except RuntimeIncompleteError: await install_runtime()`
    """

    code = "runtime-incomplete"


class JobError(MicrosandboxError, RuntimeError):
    """A detached process failed; `code` is the instance's own.

    Example: `except JobError as error: print(error.code, error.job_id)`
    """

    def __init__(self, code: str, message: str, job_id: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.job_id = job_id


class IsolationWarning(UserWarning):
    """`Isolation.AUTO` gave a container because this host cannot run a microVM; shown once per process.

    Example: `warnings.simplefilter("error", IsolationWarning)`
    """


__all__ = [
    "AgentLostError",
    "AuthError",
    "BootStartError",
    "CloudHttpError",
    "ExecFailedError",
    "ExecTimeoutError",
    "FilesystemError",
    "GuestStalledError",
    "ImageInUseError",
    "ImageNotFoundError",
    "ImagePullFailedError",
    "InvalidConfigError",
    "InvalidStateError",
    "IoError",
    "IsolationUnavailableError",
    "IsolationWarning",
    "JobError",
    "MetricsDisabledError",
    "MetricsUnavailableError",
    "MicrosandboxError",
    "NetworkPolicyError",
    "NoDefaultCommandError",
    "OutputLimitError",
    "PatchFailedError",
    "PathNotFoundError",
    "ProtocolError",
    "PublishedSnapshotArtifact",
    "RateLimitedError",
    "ResourceExhaustedError",
    "RuntimeIncompleteError",
    "RuntimeNotInstalledError",
    "SandboxAlreadyExistsError",
    "SandboxNotFoundError",
    "SandboxNotRunningError",
    "SandboxReplacedError",
    "SandboxStillRunningError",
    "SandboxStopTimedOutError",
    "SecretViolationError",
    "SnapshotAlreadyExistsError",
    "SnapshotMigrationError",
    "SnapshotNotFoundError",
    "SnapshotSourceRecoveryError",
    "StateBusyError",
    "StateCorruptError",
    "StateError",
    "StateLostError",
    "StateReadOnlyError",
    "StopTimeoutError",
    "TlsError",
    "UnsupportedError",
    "UnsupportedOperationError",
    "VolumeAlreadyExistsError",
    "VolumeInUseError",
    "VolumeNotFoundError",
]
