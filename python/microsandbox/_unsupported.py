"""Operations that the surface has and this build has not: they say when they come."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import iscoroutinefunction, isfunction, signature
from typing import Any, NoReturn, TypeVar

from .errors import UnsupportedError

_T = TypeVar("_T")

FORK = "when snapshots land"
RUNTIME = "never needed: agent and runtime are inside the wheel"
SNAPSHOTS = "when snapshots land"
SSH = "when the SSH server lands"


def unsupported(operation: str, hint: str) -> UnsupportedError:
    """The error of `operation`, with both fields."""
    error = UnsupportedError(f"{operation} is not supported by this backend: {hint}")
    error.operation = operation
    error.hint = hint
    return error


def refuse(operation: str, hint: str) -> NoReturn:
    """Raises the error of `operation`."""
    raise unsupported(operation, hint)


async def refuse_later(operation: str, hint: str) -> NoReturn:
    """As `refuse`, once it is awaited: for calls whose arguments are checked before that."""
    raise unsupported(operation, hint)


def refused(hint: str, *kept: str) -> Callable[[_T], _T]:
    """Makes a function refuse its call, or a class every public member and the making of objects.

    The signature stays, so that arguments are still checked against it; the body is the docstring alone. Members that
    are `kept` have a body, which checks more and refuses then.
    """

    def decorate(thing: Any) -> Any:
        if isfunction(thing):
            return _refusing(thing, None, hint)
        for name, member in list(vars(thing).items()):
            operation = f"{thing.__name__}.{name}"
            if name in kept:
                continue
            if isinstance(member, staticmethod):
                setattr(thing, name, staticmethod(_refusing(member.__func__, operation, hint)))
            elif isinstance(member, property):
                setattr(thing, name, property(_refusing(member.fget, operation, hint)))
            elif isfunction(member) and not name.startswith("_"):
                setattr(thing, name, _refusing(member, operation, hint))

        def __init__(self: Any) -> None:
            raise unsupported(thing.__name__, hint)

        thing.__init__ = __init__
        return thing

    return decorate


def _refusing(function: Any, operation: str | None, hint: str) -> Any:
    """`function` without its body; without an operation it is a method, named for the class of its object."""

    def refuse_call(args: tuple[Any, ...], keywords: dict[str, Any]) -> NoReturn:
        signature(function).bind(*args, **keywords)
        raise unsupported(operation or f"{type(args[0]).__name__}.{function.__name__}", hint)

    if iscoroutinefunction(function):

        @wraps(function)
        async def refusing(*args: Any, **keywords: Any) -> NoReturn:
            refuse_call(args, keywords)

    else:

        @wraps(function)
        def refusing(*args: Any, **keywords: Any) -> NoReturn:
            refuse_call(args, keywords)

    return refusing
