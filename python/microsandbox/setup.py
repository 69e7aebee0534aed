"""The host runtime: agent and runtime are inside the extension module. Only microVMs need more, a guest kernel: its
library is brought in by `msb install libkrunfw`, or by `install_runtime` from a file.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal, Union

from ._checks import Path
from ._unsupported import RUNTIME, unsupported

__all__ = [
    "InstallOptions",
    "ResolvedRuntime",
    "RuntimeConfig",
    "RuntimeOrigin",
    "ensure_runtime",
    "install",
    "install_runtime",
    "is_installed",
    "is_runtime_installed",
    "resolve_runtime",
    "set_libkrunfw_path",
]

RuntimeOrigin = Union[
    Literal["environment"], Literal["sdk_package"], Literal["configuration"], Literal["home"], Literal["installed"]
]
_SOURCES = ("release_download", "archive", "directory", "embedded_archive")


@dataclass(frozen=True)
class RuntimeConfig:
    """Where the host runtime is looked for.

    Example: `RuntimeConfig(libkrunfw_path="/opt/libkrunfw.so.5")`
    """

    home: Union[Path, None] = None
    msb_path: Union[Path, None] = None
    libkrunfw_path: Union[Path, None] = None


@dataclass(frozen=True)
class InstallOptions:
    """Where the host runtime comes from.

    Example: `await install_runtime(options=InstallOptions(force=True))`
    """

    source: str = "release_download"
    source_path: Union[Path, None] = None
    version: Union[str, None] = None
    force: bool = False
    verify: bool = True
    expected_archive_sha256: Union[str, None] = None

    def __post_init__(self) -> None:
        if self.source not in _SOURCES:
            raise ValueError(f"source must be one of {', '.join(_SOURCES)}, not {self.source!r}")


@dataclass(frozen=True)
class ResolvedRuntime:
    """The host runtime in use. `libkrunfw_path` names the guest kernel's library; None where there is no usable one.

    Example: `print(resolve_runtime().msb_path)`
    """

    msb_path: str
    libkrunfw_path: Union[str, None]
    origin: RuntimeOrigin


def resolve_runtime(config: RuntimeConfig | None = None) -> ResolvedRuntime:
    """The runtime that calls use: the one inside this package.

    Example: `print(resolve_runtime().origin)`
    """
    from . import _microsandbox

    _refuse_config(config)
    return ResolvedRuntime(str(_microsandbox.__file__), _microsandbox.resolved_libkrunfw_path(), "sdk_package")


def is_runtime_installed(config: RuntimeConfig | None = None) -> bool:
    """Whether the runtime is there; always, because it is inside this package.

    Example: `print(is_runtime_installed())`
    """
    _refuse_config(config)
    return True


def install() -> None:
    """Does nothing: the runtime is inside this package. The older name of `install_runtime`.

    Example: `install()`
    """
    warnings.warn("install() is the older spelling; use install_runtime()", DeprecationWarning, stacklevel=2)


def is_installed() -> bool:
    """True. The older name of `is_runtime_installed`.

    Example: `print(is_installed())`
    """
    text = "is_installed() is the older spelling; use is_runtime_installed()"
    warnings.warn(text, DeprecationWarning, stacklevel=2)
    return True


def set_libkrunfw_path(path: str) -> None:
    """Names the guest kernel's library for this process; `MSB_LIBKRUNFW_PATH` still wins, the last call counts.

    The file is looked at when a microVM is wanted, not now. `ValueError` for an empty path.

    Example: `set_libkrunfw_path("/opt/libkrunfw.so.5")`
    """
    from . import _microsandbox

    if not isinstance(path, str):
        raise TypeError(f"path must be str, not {type(path).__name__}")
    if not path:
        raise ValueError("path must not be empty")
    _microsandbox.set_runtime_libkrunfw_path(path)


def _refuse_config(config: RuntimeConfig | None) -> None:
    if config is not None and config != RuntimeConfig():
        raise unsupported("RuntimeConfig", RUNTIME)


# At the end: it needs the classes above.
from ._setup import ensure_runtime, install_runtime  # noqa: E402
