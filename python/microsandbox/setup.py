"""The host runtime: agent and runtime are inside the extension module, so there is nothing to install."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import Literal, Union

from ._config import Path
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
    """Where the host runtime is looked for."""

    home: Union[Path, None] = None
    msb_path: Union[Path, None] = None
    libkrunfw_path: Union[Path, None] = None


@dataclass(frozen=True)
class InstallOptions:
    """Where the host runtime comes from."""

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
    """The host runtime in use. `libkrunfw_path` names the guest kernel library; None without a microVM driver."""

    msb_path: str
    libkrunfw_path: Union[str, None]
    origin: RuntimeOrigin


def resolve_runtime(config: RuntimeConfig | None = None) -> ResolvedRuntime:
    """The runtime that calls use: the one inside this package."""
    from . import _microsandbox

    _refuse_config(config)
    return ResolvedRuntime(str(_microsandbox.__file__), os.environ.get("MSB_LIBKRUNFW_PATH"), "sdk_package")


def is_runtime_installed(config: RuntimeConfig | None = None) -> bool:
    """Whether the runtime is there; always, because it is inside this package."""
    _refuse_config(config)
    return True


async def install_runtime(
    config: RuntimeConfig | None = None, options: InstallOptions | None = None
) -> ResolvedRuntime:
    """Does nothing: the runtime is inside this package. `UnsupportedError` for any source but the default."""
    if options is not None and options != InstallOptions():
        raise unsupported("install_runtime(options=)", RUNTIME)
    return resolve_runtime(config)


async def ensure_runtime(config: RuntimeConfig | None = None, options: InstallOptions | None = None) -> ResolvedRuntime:
    """As `install_runtime`."""
    return await install_runtime(config, options)


def install() -> None:
    """Does nothing: the runtime is inside this package. The older name of `install_runtime`."""
    warnings.warn("install() is the older spelling; use install_runtime()", DeprecationWarning, stacklevel=2)


def is_installed() -> bool:
    """True. The older name of `is_runtime_installed`."""
    text = "is_installed() is the older spelling; use is_runtime_installed()"
    warnings.warn(text, DeprecationWarning, stacklevel=2)
    return True


def set_libkrunfw_path(path: str) -> None:
    """Path of the guest kernel library. `UnsupportedError` until the microVM driver lands."""
    if not isinstance(path, str):
        raise TypeError(f"path must be str, not {type(path).__name__}")
    raise unsupported("set_libkrunfw_path", "when the microVM driver lands")


def _refuse_config(config: RuntimeConfig | None) -> None:
    if config is not None and config != RuntimeConfig():
        raise unsupported("RuntimeConfig", RUNTIME)
