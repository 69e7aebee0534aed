# Generated from _setup.py by python/tools/generate_sync.py: change that, not this.
"""Bringing in what microVMs need: what of `setup` waits for something."""
from __future__ import annotations
from .. import _microsandbox
from .._runtime import wait as run
from .._unsupported import RUNTIME, unsupported
from ..setup import InstallOptions, ResolvedRuntime, RuntimeConfig, _refuse_config, resolve_runtime

def install_runtime(config: RuntimeConfig | None=None, options: InstallOptions | None=None) -> ResolvedRuntime:
    """Puts the guest kernel's library from a file (`source="archive"`: the library, or a wheel with it) into the home.

    Without options it does nothing: the runtime itself is inside this package. `UnsupportedError` for other sources;
    `msb install libkrunfw` fetches one.

    Example: `install_runtime(options=InstallOptions(source="archive", source_path="libkrunfw.so.5"))`
    """
    if options is not None and options.source == 'archive' and (options.source_path is not None):
        if options != InstallOptions(source='archive', source_path=options.source_path):
            raise unsupported('install_runtime(options=) with more than source and source_path', RUNTIME)
        _refuse_config(config)
        run(_microsandbox.install_libkrunfw(options.source_path))
    elif options is not None and options != InstallOptions():
        raise unsupported('install_runtime(options=)', RUNTIME)
    return resolve_runtime(config)

def ensure_runtime(config: RuntimeConfig | None=None, options: InstallOptions | None=None) -> ResolvedRuntime:
    """As `install_runtime`.

    Example: `runtime = ensure_runtime()`
    """
    return install_runtime(config, options)
