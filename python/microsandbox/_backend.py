"""Where sandboxes live: backend objects, the process default, and scopes."""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Union

from . import _microsandbox
from ._checks import checked
from ._enums import BackendKind, Isolation

if TYPE_CHECKING:
    import os

    from ._checks import Path
    from ._microsandbox import BackendInfo

_scoped: ContextVar[Union[BackendObject, None]] = ContextVar("microsandbox backend", default=None)


class BackendObject:
    """Base of the backend objects: `with` and `async with` bind one to the current context."""

    _tokens: list[Token[Any]]

    @property
    def kind(self) -> BackendKind:
        """Which kind of backend this is."""
        raise NotImplementedError

    @property
    def _native(self) -> _microsandbox.NativeBackend:
        raise NotImplementedError

    def __enter__(self) -> Any:
        self._tokens.append(_scoped.set(self))
        return self

    def __exit__(self, *exc: object) -> None:
        _scoped.reset(self._tokens.pop())

    async def __aenter__(self) -> Any:
        return self.__enter__()

    async def __aexit__(self, *exc: object) -> None:
        self.__exit__()


class LocalBackend(BackendObject):
    """Sandboxes on this machine, under one home directory. Opens nothing until it is used.

    Keywords override the stored configuration for this object only. `home` is the base of all state
    (`MSB_HOME` or `~/.microsandbox` by default), `isolation` what `Isolation.AUTO` means, `cpus` and `memory` (MiB)
    what a sandbox gets when nothing is said, `shell` and `workdir` likewise, `max_connections` bounds readers of the
    state database.

    Example: `await Sandbox.create("x", image="host", backend=LocalBackend(home="/tmp/sandboxes"))`
    """

    def __init__(
        self,
        home: Path | None = None,
        *,
        isolation: Isolation | None = None,
        max_connections: int | None = None,
        cpus: int | None = None,
        memory: int | None = None,
        shell: str | None = None,
        workdir: str | None = None,
    ) -> None:
        self._tokens = []
        self._made = _microsandbox.local_backend(
            {
                "home": home,
                "isolation": isolation,
                "max_connections": max_connections,
                "cpus": cpus,
                "memory": memory,
                "shell": shell,
                "workdir": workdir,
            }
        )

    @property
    def kind(self) -> BackendKind:
        """`BackendKind.LOCAL`."""
        return BackendKind.LOCAL

    @property
    def _native(self) -> _microsandbox.NativeBackend:
        return self._made

    @property
    def home(self) -> os.PathLike[str] | None:
        """Base directory of all state."""
        return self._made.home

    def __repr__(self) -> str:
        return f"LocalBackend(home={str(self.home)!r})"


class CloudBackend(BackendObject):
    """Sandboxes of a remote service: the hosted one, or a machine of yours that runs `msb serve`. Connects to nothing
    before it is used.

    `url` is `https://HOST[:PORT]` (`http://` for a service on this machine), `api_key` its key, which no `repr`, log or
    error shows. `wire` is the dialect of the service: `"spec"`, or `"flat"` for an older one without live programs,
    files and volumes. Certificates are checked against the machine's own trust anchors; `SSL_CERT_FILE` names others.

    Raises `InvalidConfigError` for an address or a key that cannot be one.

    Example: `await Sandbox.create("x", image="host", backend=CloudBackend("https://10.0.0.2:8443", key))`
    """

    def __init__(self, url: str, api_key: str, *, wire: str = "spec") -> None:
        self._tokens = []
        self._made = _microsandbox.cloud_backend(_text("url", url), _text("api_key", api_key), _text("wire", wire))

    @classmethod
    def _of(cls, made: _microsandbox.NativeBackend) -> CloudBackend:
        backend = cls.__new__(cls)
        backend._tokens = []
        backend._made = made
        return backend

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

    @property
    def _native(self) -> _microsandbox.NativeBackend:
        return self._made

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
    _microsandbox.set_default_backend(_resolve(kind, url, api_key, profile)._native)


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
