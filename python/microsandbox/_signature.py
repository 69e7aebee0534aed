"""Groups of keywords that several calls share, spelled out wherever a call shows its signature.

A group is a TypedDict; a call takes it as `**options: Unpack[Group]`, which type checkers read as keywords.
`ParamSpec` would do for calls that share all their parameters, but cannot put keywords after differing ones (PEP 612).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from inspect import Parameter, signature
from typing import Any, TypeVar

_F = TypeVar("_F", bound=Callable[..., Any])


def spelled_out(group: type[Any], **defaults: object) -> Callable[[_F], _F]:
    """Shows the keys of `group` as keyword-only parameters in place of `**options`.

    The default of a `bool` is shown as False and that of anything else as None, unless `defaults` names another.
    """
    keywords = []
    for name, kind in group.__annotations__.items():
        text = getattr(kind, "__forward_arg__", kind)
        default = defaults.get(name, False if text == "bool" else None)
        keywords.append(Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=text))

    def decorate(function: _F) -> _F:
        shown = signature(function)
        own = [parameter for parameter in shown.parameters.values() if parameter.kind is not Parameter.VAR_KEYWORD]
        function.__signature__ = shown.replace(parameters=[*own, *keywords])  # type: ignore[attr-defined]
        return function

    return decorate


def refuse_unknown(call: str, options: Mapping[str, Any], known: Iterable[str]) -> None:
    """The `TypeError` of a keyword that `call` does not have, with the nearest one that it has."""
    known = frozenset(known)
    for name in options:
        if name in known:
            continue
        from difflib import get_close_matches

        near = get_close_matches(name, known, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise TypeError(f"{call}() got an unexpected keyword argument {name!r}{hint}")
