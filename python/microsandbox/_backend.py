"""Where sandboxes live: backend objects, the process default, and scopes."""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, TypedDict, Union

from . import _microsandbox
from ._checks import checked
from ._enums import BackendKind, Isolation, LogLevel
from ._signature import refuse_unknown, spelled_out

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from typing_extensions import Self, Unpack

    from ._checks import Path
    from ._microsandbox import BackendInfo

_scoped: ContextVar[Union[BackendObject, None]] = ContextVar("microsandbox backend", default=None)


class BackendObject:
    """Base of the backend objects: `with` and `async with` bind one to the current context."""

    _tokens: list[Token[Any]]
    _made: _microsandbox.NativeBackend

    @classmethod
    def _of(cls, made: _microsandbox.NativeBackend) -> Self:
        backend = cls.__new__(cls)
        backend._tokens = []
        backend._made = made
        return backend

    @property
    def kind(self) -> BackendKind:
        """Which kind of backend this is."""
        raise NotImplementedError

    @property
    def _native(self) -> _microsandbox.NativeBackend:
        return self._made

    def __enter__(self) -> Any:
        self._tokens.append(_scoped.set(self))
        return self

    def __exit__(self, *exc: object) -> None:
        _scoped.reset(self._tokens.pop())

    async def __aenter__(self) -> Any:
        return self.__enter__()

    async def __aexit__(self, *exc: object) -> None:
        self.__exit__()


class LocalKeywords(TypedDict, total=False):
    """Keywords of `LocalBackend`; None leaves the stored value."""

    isolation: Isolation | None
    max_connections: int | None
    cpus: int | None
    memory: int | None
    shell: str | None
    workdir: str | None
    log_level: LogLevel | None
    connect_timeout: float | None
    busy_timeout: float | None
    metrics_interval: float | None
    disable_metrics: bool
    sandboxes_dir: Path | None
    volumes_dir: Path | None
    snapshots_dir: Path | None
    cache_dir: Path | None
    logs_dir: Path | None
    secrets_dir: Path | None
    ca_certs: Path | None
    registry_hosts: Mapping[str, Mapping[str, Any]] | None


class LocalBackend(BackendObject):
    """Sandboxes on this machine, under one home directory. Opens nothing until it is used.

    Keywords override the stored configuration for this object only. `home` is the base of all state
    (`MSB_HOME` or `~/.microsandbox` by default); `sandboxes_dir`, `volumes_dir`, `snapshots_dir`, `cache_dir`,
    `logs_dir` and `secrets_dir` are directories elsewhere.

    `isolation` is what `Isolation.AUTO` means; `cpus`, `memory` (MiB), `shell` and `workdir` are what a sandbox gets
    when a call does not say. `log_level` is the level of the host processes of sandboxes. A sample of a sandbox's
    resources is taken every `metrics_interval` seconds (1, 0 for none), and none with `disable_metrics`.

    `max_connections` bounds the readers of the state database, `connect_timeout` (30) the wait for a connection and
    `busy_timeout` (5) that for another process's write, both in whole seconds. `ca_certs` is a PEM file of certificates
    that registries may have; `registry_hosts` replaces `registries.hosts` of the configuration file, with its keys:
    `{"registry.example": {"insecure": False, "auth": {"username": "me", "password_env": "REGISTRY_PASSWORD"}}}`.

    Example: `await Sandbox.create("x", image="host", backend=LocalBackend(home="/tmp/sandboxes"))`
    """

    @spelled_out(LocalKeywords)
    def __init__(self, home: Path | None = None, **options: Unpack[LocalKeywords]) -> None:
        refuse_unknown("LocalBackend", options, ["home", *LocalKeywords.__annotations__])
        self._tokens = []
        self._made = _microsandbox.local_backend({"home": home, **options})

    @property
    def kind(self) -> BackendKind:
        """`BackendKind.LOCAL`."""
        return BackendKind.LOCAL

    @property
    def home(self) -> os.PathLike[str] | None:
        """Base directory of all state."""
        return self._made.home

    @property
    def config(self) -> dict[str, Any]:
        """The configuration in force, section by section as in the configuration file. Passwords are not part of it.

        Example: `print(LocalBackend().config["sandbox_defaults"]["memory_mib"])`
        """
        import json

        parsed: dict[str, Any] = json.loads(self._made.config_json or "{}")
        return parsed

    @property
    def paths(self) -> dict[str, os.PathLike[str]]:
        """The directories in use: `home`, `sandboxes`, `volumes`, `snapshots`, `cache`, `logs` and `secrets`, and the
        state database, `database`.

        Example: `print(LocalBackend().paths["volumes"])`
        """
        return dict(self._made.paths or ())

    def __repr__(self) -> str:
        return f"LocalBackend(home={str(self.home)!r})"


class CloudBackend(BackendObject):
    """Sandboxes of a remote service: the hosted one, or a machine of yours that runs `msb serve`. Connects to nothing
    before it is used.

    `url` is `https://HOST[:PORT]` (`http://` for a service on this machine), `api_key` its key, which no `repr`, log or
    error shows. `wire` is the dialect of the service: `"spec"`, or `"flat"` for an older one without live programs,
    files and volumes. `request_timeout` is in seconds (30), for calls that are not streams; `user_agent` replaces the
    name that this client gives. Certificates are checked against the machine's own trust anchors (`SSL_CERT_FILE` names
    others) and `ca_certs`, PEM bytes or files. `from_profile` takes all this from the configuration file.

    Raises `InvalidConfigError` for an address or a key that cannot be one, `IoError` for a file that cannot be read.

    Example: `await Sandbox.create("x", image="host", backend=CloudBackend("https://10.0.0.2:8443", key))`
    """

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        wire: str = "spec",
        request_timeout: float | None = None,
        user_agent: str | None = None,
        ca_certs: Sequence[bytes | Path] | None = None,
    ) -> None:
        self._tokens = []
        self._made = _microsandbox.cloud_backend(
            {
                "url": _text("url", url),
                "api_key": _text("api_key", api_key),
                "wire": _text("wire", wire),
                "request_timeout": request_timeout,
                "user_agent": user_agent,
                "ca_certs": ca_certs,
            }
        )

    @classmethod
    def from_env(cls) -> CloudBackend:
        """From `MSB_API_KEY`, and `MSB_API_URL` if set. Raises `InvalidConfigError`.

        Example: `set_default_backend(CloudBackend.from_env())`
        """
        return cls._of(_microsandbox.cloud_backend_from_env())

    @classmethod
    def from_profile(cls, name: str) -> CloudBackend:
        """From a cloud profile of the configuration file. Raises `InvalidConfigError`.

        Example: `async with CloudBackend.from_profile("lab"): print(await Sandbox.list())`
        """
        return cls._of(_microsandbox.cloud_backend_from_profile(_text("name", name)))

    @property
    def kind(self) -> BackendKind:
        """`BackendKind.CLOUD`."""
        return BackendKind.CLOUD

    @property
    def url(self) -> str:
        """Address of the service, without trailing slashes."""
        return self._made.url or ""

    @property
    def wire(self) -> str:
        """Dialect of the service: `spec` or `flat`."""
        return self._made.wire or ""

    def __repr__(self) -> str:
        return f"CloudBackend(url={self.url!r}, wire={self.wire!r})"


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be str, not {type(value).__name__}")
    if not value.strip():
        raise ValueError(f"{name} must not be empty")
    return value.strip()


def pick(backend: BackendObject | None) -> _microsandbox.NativeBackend | None:
    """The native object of `backend`, else of the innermost scope; None means the process default."""
    if backend is None:
        backend = _scoped.get()
        if backend is None:
            return None
    elif not isinstance(backend, BackendObject):
        raise TypeError(f"backend must be LocalBackend or CloudBackend, not {type(backend).__name__}")
    return backend._native


def _resolve(
    kind: BackendKind | BackendObject, url: str | None, api_key: str | None, profile: str | None
) -> BackendObject:
    if isinstance(kind, BackendObject):
        if url is not None or api_key is not None or profile is not None:
            raise ValueError("a backend object takes no url, api_key or profile")
        return kind
    if isinstance(kind, str) and not isinstance(kind, BackendKind):
        try:
            kind = BackendKind(kind.strip().lower())
        except ValueError:
            raise ValueError(f"kind must be 'local' or 'cloud', not {kind!r}") from None
    if checked(kind, BackendKind, "kind") is BackendKind.LOCAL:
        if url is not None or api_key is not None or profile is not None:
            raise ValueError("the local backend takes no url, api_key or profile")
        return LocalBackend()
    if api_key is None and profile is None:
        raise ValueError("cloud backend requires api_key or profile")
    if profile is not None:
        if api_key is not None:
            raise ValueError("api_key or profile, not both")
        return CloudBackend.from_profile(profile)
    return CloudBackend(url or "https://api.microsandbox.dev", api_key or "")


#: What a program set as the process default, and the object that it set.
_installed: list[BackendObject] = []


def set_default_backend(
    kind: BackendKind | BackendObject,
    *,
    url: str | None = None,
    api_key: str | None = None,
    profile: str | None = None,
) -> None:
    """Sets the backend of calls that name none, for the whole process.

    `kind` is a `BackendKind`, its value in any case, or a backend object. The cloud needs `api_key` (with `url`) or
    `profile`, the local backend takes none of them: `ValueError` otherwise. The variables of the environment are not
    asked.

    Example: `set_default_backend(LocalBackend(home="/srv/sandboxes"))`
    """
    backend = _resolve(kind, url, api_key, profile)
    _microsandbox.set_default_backend(backend._native)
    _installed[:] = [backend]


def swap_default_backend(
    kind: BackendKind | BackendObject,
    *,
    url: str | None = None,
    api_key: str | None = None,
    profile: str | None = None,
) -> BackendObject:
    """As `set_default_backend`; the backend that was the process default before, so that it can be put back.

    Example: `previous = swap_default_backend(LocalBackend(home="/tmp/state")); swap_default_backend(previous)`
    """
    backend = _resolve(kind, url, api_key, profile)
    previous = _object(_microsandbox.swap_default_backend(backend._native))
    _installed[:] = [backend]
    return previous


def default_backend() -> BackendObject:
    """The backend that a call without `backend=` uses now: of the innermost scope, else of the process.

    Example: `backend = default_backend(); print(backend.kind)`
    """
    return _scoped.get() or _object(_microsandbox.default_backend())


def _object(native: _microsandbox.NativeBackend) -> BackendObject:
    """The process default as the object that a program set, or as a new one for what the configuration chose."""
    if _installed:
        return _installed[0]
    kind = LocalBackend if native.kind is BackendKind.LOCAL else CloudBackend
    return kind._of(native)


class BackendScope:
    """What `backend_scope` gives: a context manager, or `restore()` by hand.

    Example: `with backend_scope(BackendKind.LOCAL): print(default_backend_kind())`
    """

    def __init__(self, backend: BackendObject) -> None:
        self._token: Token[Any] | None = _scoped.set(backend)

    def restore(self) -> None:
        """Ends the scope; a second call does nothing.

        Example: `scope = backend_scope(BackendKind.LOCAL); scope.restore()`
        """
        token, self._token = self._token, None
        if token is not None:
            _scoped.reset(token)

    def __enter__(self) -> BackendScope:
        return self

    def __exit__(self, *exc: object) -> None:
        self.restore()


def backend_scope(
    kind: BackendKind | BackendObject,
    *,
    url: str | None = None,
    api_key: str | None = None,
    profile: str | None = None,
) -> BackendScope:
    """The backend of calls that name none, in the current context only: tasks made inside inherit it, others do not.

    Example: `with backend_scope(LocalBackend(home="/tmp/state")): await Sandbox.create("x", image="host")`
    """
    return BackendScope(_resolve(kind, url, api_key, profile))


def default_backend_kind() -> BackendKind:
    """Kind of the backend that a call without `backend=` uses now.

    Example: `assert default_backend_kind() is BackendKind.LOCAL`
    """
    scoped = _scoped.get()
    return _microsandbox.default_backend_kind() if scoped is None else scoped.kind


def default_backend_info() -> BackendInfo:
    """Kind, address, profile and origin of the backend that a call without `backend=` uses now; never a key.

    Example: `print(default_backend_info().source)`
    """
    scoped = _scoped.get()
    return _microsandbox.default_backend_info() if scoped is None else scoped._native.info
