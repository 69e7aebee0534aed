# Generated from _create.py by python/tools/generate_sync.py: change that, not this.
"""What the calls that make a sandbox have in common."""
from __future__ import annotations
from collections.abc import Callable
from typing import Any, TypeVar
from .. import _backend, _deprecation, _microsandbox
_T = TypeVar('_T')

def call(native: Callable[..., _microsandbox.Pending[_T]], given: dict[str, Any]) -> _microsandbox.Pending[_T]:
    """Checks the keywords of `create` and prepares the native call."""
    options = dict(given)
    name = options.pop('name')
    backend = options.pop('backend')
    if options['from_snapshot'] is not None:
        _deprecation.warn('create(from_snapshot=)', 'Sandbox.restore(snapshot, name=…)', depth=2)
    if options['on_secret_violation'] is not None:
        _deprecation.warn('create(on_secret_violation=)', 'secret_violation_action=', depth=2)
        newer = options['secret_violation_action']
        if newer is not None and newer != options['on_secret_violation']:
            raise ValueError('on_secret_violation= and secret_violation_action= differ; give one')
    _deprecation.passthrough(options['secret_violation_action'], depth=2)
    return native(name, options, _backend.pick(backend))
