"""What the site adds to griffe, which reads the sources: the reference shows the package as its users see it.

- A name that `microsandbox` exports belongs to `microsandbox`, whatever private module defines it.
- A private base class is an arrangement of the sources: its members are shown as those of the public class.
- `**options: Unpack[Group]` is the keywords of the group, one parameter each.
- `Example:` in a docstring is a block of Python.
"""

from __future__ import annotations

import ast
import copy
import re
import textwrap
from collections.abc import Iterator
from typing import Any

import griffe

PACKAGE = "microsandbox"
NATIVE = "_microsandbox"
INLINE = re.compile(r"^Example: `([^`]+)`(.*)\Z", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^Example::?\n\n?((?:(?: {4}.*)?(?:\n|\Z))+)", re.MULTILINE)
PROMPT = (">>> ", "... ")
# A colon pair before an indented block is reStructuredText; in Markdown the indent alone makes the block.
LITERAL = re.compile(r"::$", re.MULTILINE)


def rendered(text: str) -> str:
    """A docstring as Markdown, with its example as a block of Python."""
    text = BLOCK.sub(lambda found: _fenced(textwrap.dedent(found[1])), text)
    text = INLINE.sub(lambda found: _fenced(" ".join(found[1].split())) + found[2].removeprefix("."), text)
    return LITERAL.sub(":", text)


def _fenced(code: str) -> str:
    lines = code.strip("\n").split("\n")
    if any(line.startswith(PROMPT) for line in lines):
        lines = [line[4:] if line.startswith(PROMPT) else f"# {line}" for line in lines]
    elif len(lines) == 1:
        lines = one_statement_a_line(code)
    return "\n".join(("**Example**", "", "```python", *lines, "```", ""))


def one_statement_a_line(code: str) -> list[str]:
    """A program that its docstring has on one line, as one would write it in a file."""
    try:
        statements = ast.parse(code).body
    except SyntaxError:  # An `except` clause without its `try`.
        head, _, body = code.partition(": ")
        return [f"{head}:", f"    {body}"]
    lines = []
    for statement in statements:
        text = ast.get_source_segment(code, statement) or code
        body = getattr(statement, "body", None)
        if body:
            head = code[statement.col_offset : body[0].col_offset].rstrip()
            lines += [head, *(f"    {ast.get_source_segment(code, inner)}" for inner in body)]
        else:
            lines.append(text)
    return lines


def exported(package: griffe.Module) -> list[str]:
    """The names in `__all__`."""
    return [str(name) for name in package.exports or []]


class PublicNames(griffe.Extension):
    """See the module."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        if pkg.path != PACKAGE:
            return
        homes = {name: pkg.members[name] for name in exported(pkg) if name in pkg.members}
        public = {name: home.final_target if isinstance(home, griffe.Alias) else home for name, home in homes.items()}
        classes = [thing for thing in public.values() if isinstance(thing, griffe.Class)]
        for module in pkg.modules.values():
            if not module.name.startswith("_") and not module.is_alias:
                classes += [member for member in module.members.values() if isinstance(member, griffe.Class)]
        kept = {thing.path for thing in classes}
        _each_function(pkg, set())
        # Names are looked up where a class is defined: all of them before the first class moves.
        for cls in classes:
            _absorb(cls, kept)
            _hide_private_constructor(cls)
        for name, thing in public.items():
            pkg.set_member(name, thing)
        _convert(pkg, pkg, set())


def _each_function(thing: griffe.Object | griffe.Alias, seen: set[int]) -> None:
    """Spells out the groups of keywords of every function below `thing`."""
    if isinstance(thing, griffe.Alias) or id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, griffe.Function):
        _spell_out(thing)
    for member in thing.members.values():
        _each_function(member, seen)


def _spell_out(function: griffe.Function) -> None:
    """Replaces `**options: Unpack[Group]` by the keys of the group, as `inspect.signature` shows them."""
    parameters = list(function.parameters)
    last = parameters[-1] if parameters else None
    if last is None or last.kind is not griffe.ParameterKind.var_keyword:
        return
    annotation = last.annotation
    if not isinstance(annotation, griffe.ExprSubscript) or not str(annotation.left).endswith("Unpack"):
        return
    if not isinstance(annotation.slice, griffe.Expr):
        return
    group = function.modules_collection[annotation.slice.canonical_path]
    defaults = _stated_defaults(function)
    keywords = [
        griffe.Parameter(
            name,
            annotation=member.annotation,
            kind=griffe.ParameterKind.keyword_only,
            default=defaults.get(name, "False" if str(member.annotation) == "bool" else "None"),
        )
        for name, member in group.members.items()
        if isinstance(member, griffe.Attribute)
    ]
    function.parameters = griffe.Parameters(*parameters[:-1], *keywords)


def _stated_defaults(function: griffe.Function) -> dict[str, griffe.Expr | str]:
    """The defaults that the decorator `spelled_out` names."""
    for decorator in function.decorators:
        call = decorator.value
        if isinstance(call, griffe.ExprCall) and str(call.function).endswith("spelled_out"):
            return {item.name: item.value for item in call.arguments if isinstance(item, griffe.ExprKeyword)}
    return {}


def _absorb(cls: griffe.Class, public: set[str]) -> None:
    """Gives a class the members of its private bases and removes those bases."""
    bases = []
    for expression in cls.bases:
        base = _private_base(cls, expression, public)
        if base is None:
            bases.append(expression)
            continue
        for name, member in _members(base, public).items():
            if name not in cls.members:
                cls.set_member(name, copy.copy(member))
        # What a private base derives from elsewhere stays visible: `ValueError`, `Enum`.
        bases += [upper for upper in base.bases if _private_base(base, upper, public) is None]
    cls.bases = bases


def _private_base(cls: griffe.Class, expression: str | griffe.Expr, public: set[str]) -> griffe.Class | None:
    path = expression if isinstance(expression, str) else expression.canonical_path
    if not path.startswith(f"{PACKAGE}."):
        return None
    found = cls.modules_collection[path]
    if isinstance(found, griffe.Alias):
        found = found.final_target
    return found if isinstance(found, griffe.Class) and found.path not in public else None


def _members(base: griffe.Class, public: set[str]) -> dict[str, griffe.Object | griffe.Alias]:
    """The members of a private class and of its own private bases."""
    found: dict[str, griffe.Object | griffe.Alias] = {}
    for upper in reversed(base.bases):
        if (above := _private_base(base, upper, public)) is not None:
            found |= _members(above, public)
    return found | base.members


def _hide_private_constructor(cls: griffe.Class) -> None:
    """Removes a constructor that only the package itself can call, because it takes a native object."""
    made = cls.members.get("__init__")
    if not isinstance(made, griffe.Function):
        return
    for expression in _expressions(made):
        names = (name for name in expression.iterate(flat=True) if isinstance(name, griffe.ExprName))
        if any(name.canonical_path.startswith(f"{PACKAGE}.{NATIVE}.") for name in names):
            cls.del_member("__init__")
            return


def _convert(thing: griffe.Object | griffe.Alias, package: griffe.Module, seen: set[int]) -> None:
    """Makes Markdown of every docstring below `thing`, and public names of those in its signatures."""
    if isinstance(thing, griffe.Alias) or id(thing) in seen:
        return
    seen.add(id(thing))
    if thing.docstring:
        thing.docstring.value = rendered(thing.docstring.value)
    for expression in _expressions(thing):
        for name in expression.iterate(flat=True):
            if isinstance(name, griffe.ExprName) and name.canonical_path.startswith(f"{PACKAGE}._"):
                name.parent = package if name.name in package.members else None
    for member in thing.members.values():
        _convert(member, package, seen)


def _expressions(thing: griffe.Object) -> Iterator[griffe.Expr]:
    """What a signature shows."""
    found: list[str | griffe.Expr | None] = []
    if isinstance(thing, griffe.Function):
        found = [thing.returns]
        for parameter in thing.parameters:
            found += [parameter.annotation, parameter.default]
    elif isinstance(thing, griffe.Attribute):
        found = [thing.annotation, thing.value]
    elif isinstance(thing, griffe.Class):
        found = [*thing.bases]
    yield from (expression for expression in found if isinstance(expression, griffe.Expr))
