"""Writes `microsandbox/sync/` from the async modules: the same bodies without `await`.

Each async module whose classes wait for something has a twin of the same name. What differs is only how a native call
is run: `_runtime.run` awaits it, `_runtime.wait` blocks the calling thread. Run `python python/tools/generate_sync.py`
after changing an async module; with `--check` it only says whether the twins are up to date.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "microsandbox"
TWINS = [
    "_agent",
    "_create",
    "_exec",
    "_files",
    "_handle",
    "_image",
    "_isolation",
    "_jobs",
    "_later",
    "_logs",
    "_metrics",
    "_metrics_stream",
    "_pull",
    "_sandbox",
    "_setup",
    "_snapshot",
    "_ssh",
    "_storage",
    "_volume",
]
# Modules whose every name is the same object in both faces.
SHARED_IN_TWINS = {
    "_pull": ["PullEvent"],
    "_handle": ["SandboxPingResult", "SandboxTouchResult"],
    "_snapshot": ["SnapshotArchive"],
    "_storage": ["MemoryCacheEntry", "MemoryCacheReport", "StorageCategoryUsage", "StorageItemUsage", "StorageUsage"],
}
METHODS = {"__aenter__": "__enter__", "__aexit__": "__exit__", "__aiter__": "__iter__", "__anext__": "__next__"}
NAMES = {"StopAsyncIteration": "StopIteration", "AwaitableStr": "str", "AwaitableBool": "bool"}
# What stands for what of `_runtime`.
FACES = {"run": "wait", "told": "told_here"}
ASYNC_ONLY = {"AwaitableBool", "AwaitableStr", "eager", "mark_eager", "require_loop"}
HEADER = "# Generated from {name}.py by python/tools/generate_sync.py: change that, not this.\n"


class ToSync(ast.NodeTransformer):
    """Takes the waiting out of one module."""

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.FunctionDef:
        fields = {name: getattr(node, name) for name in node._fields}
        return self.visit_FunctionDef(ast.copy_location(ast.FunctionDef(**fields), node))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.name = METHODS.get(node.name, node.name)
        node.decorator_list = [d for d in node.decorator_list if not (isinstance(d, ast.Name) and d.id == "eager")]
        node.body = [s for s in node.body if not is_async_only(s)]
        self.generic_visit(node)
        return node

    def visit_Module(self, node: ast.Module) -> ast.Module:
        node.body = [s for s in node.body if not is_async_only(s)]
        self.generic_visit(node)
        return node

    def visit_Await(self, node: ast.Await) -> ast.expr:
        return self.visit(node.value)

    def visit_AsyncFor(self, node: ast.AsyncFor) -> ast.For:
        fields = {name: getattr(node, name) for name in node._fields}
        return self.generic_visit(ast.copy_location(ast.For(**fields), node))

    def visit_AsyncWith(self, node: ast.AsyncWith) -> ast.With:
        fields = {name: getattr(node, name) for name in node._fields}
        return self.generic_visit(ast.copy_location(ast.With(**fields), node))

    def visit_comprehension(self, node: ast.comprehension) -> ast.comprehension:
        node.is_async = 0
        return self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.Attribute:
        node.attr = METHODS.get(node.attr, node.attr)
        return self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.Name:
        node.id = NAMES.get(node.id, node.id)
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        # Coroutine[Any, Any, T] is T.
        if isinstance(node.value, ast.Name) and node.value.id == "Coroutine":
            assert isinstance(node.slice, ast.Tuple)
            return self.visit(node.slice.elts[-1])
        return self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        if isinstance(node.value, str):
            node.value = plain(node.value)
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.stmt | list[ast.stmt] | None:
        if node.level != 1:
            if node.module == "collections.abc":
                node.names = [n for n in node.names if n.name != "Coroutine"]
            return node if node.names else None
        if node.module is None:
            twins = [n for n in node.names if n.name in TWINS]
            shared = [n for n in node.names if n.name not in TWINS]
            return [ast.ImportFrom(None, part, level) for part, level in ((twins, 1), (shared, 2)) if part]
        if node.module == "_runtime":
            names = [
                ast.alias(FACES[n.name], n.name) if n.name in FACES else n
                for n in node.names
                if n.name not in ASYNC_ONLY
            ]
            return ast.ImportFrom("_runtime", names, 2) if names else None
        if node.module in TWINS:
            return node
        return ast.ImportFrom(node.module, node.names, 2)


def is_async_only(node: ast.stmt) -> bool:
    call = node.value if isinstance(node, ast.Expr) else None
    return isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in ASYNC_ONLY


def plain(text: str) -> str:
    """Documentation for those who do not wait."""
    text = re.sub(r"\basync (for|with) ", r"\1 ", text)
    text = re.sub(r"\(await (\w[\w.]*\([^()]*\))\)", r"\1", text)
    text = text.replace("`async with`", "`with`").replace("await ", "")
    text = text.replace("async iterator", "iterator").replace("; `await` is allowed, not needed", "")
    return text.replace("Awaiting raises", "Then come").replace(", also outside a loop", "")


def shared_classes(tree: ast.Module, name: str) -> None:
    """Replaces the classes that both faces share by imports."""
    shared = SHARED_IN_TWINS.get(name, [])
    tree.body = [n for n in tree.body if not (isinstance(n, ast.ClassDef) and n.name in shared)]
    if shared:
        place = next(i for i, n in enumerate(tree.body) if isinstance(n, ast.ImportFrom) and n.level)
        tree.body.insert(place, ast.ImportFrom(name, [ast.alias(n, n) for n in shared], 2))


def twin(name: str) -> str:
    tree = ast.parse((PACKAGE / f"{name}.py").read_text())
    tree = ToSync().visit(tree)
    shared_classes(tree, name)
    return HEADER.format(name=name) + ast.unparse(ast.fix_missing_locations(tree)) + "\n"


FACE = '''"""The same names as `microsandbox`, without `await`.

    from microsandbox.sync import Sandbox

    with Sandbox.create("demo", image="host") as sb:
        print(sb.exec("python3", ["-c", "print(6 * 7)"]).stdout_text)

Calls block the calling thread only, release the interpreter lock, react to Ctrl-C, and work from any thread, in
notebooks, and while an event loop runs in the calling thread. Enums, dataclasses, values and errors are the same
objects as in `microsandbox`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
{imports}
# Names that wait for something, by module; all others are those of `microsandbox`.
_HOME = {home}
_MODULE = {{name: module for module, names in _HOME.items() for name in names.split()}}


def __getattr__(name: str) -> object:
    if name in _MODULE:
        value = getattr(__import__(f"{{__name__}}.{{_MODULE[name]}}", fromlist=["*"]), name)
    elif name in __all__:
        value = getattr(__import__("microsandbox"), name)
    else:
        raise AttributeError(f"module {{__name__!r}} has no attribute {{name!r}}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({{*globals(), *__all__}})


__all__ = [
{names}]
'''


def constant(tree: ast.Module, name: str) -> object:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name:
            return ast.literal_eval(node.value)
    raise LookupError(name)


def face() -> str:
    """`microsandbox/sync/__init__.py`, from the list of names in `microsandbox/__init__.py`."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    imports, home = "", {}
    for module, text in constant(tree, "_HOME").items():
        names = text.split()
        twins = [n for n in names if module in TWINS and n not in SHARED_IN_TWINS.get(module, [])]
        if twins:
            home[module] = " ".join(twins)
        for part, source in ((twins, f".{module}"), ([n for n in names if n not in twins], f"..{module}")):
            lines = "".join(f"        {name} as {name},\n" for name in part)
            imports += f"    from {source} import (\n{lines}    )\n" if part else ""
    imports += "    from .. import __version__ as __version__\n"
    listed = "".join(f'    "{name}",\n' for name in constant(tree, "__all__"))
    homes = "{\n" + "".join(f'    "{m}": "{t}",\n' for m, t in home.items()) + "}"
    return HEADER.format(name="__init__") + FACE.format(imports=imports, home=homes, names=listed)


def main() -> int:
    folder = PACKAGE / "sync"
    folder.mkdir(exist_ok=True)
    stale = []
    for name in (*TWINS, "__init__"):
        text, target = face() if name == "__init__" else twin(name), folder / f"{name}.py"
        if target.exists() and target.read_text() == text:
            continue
        stale.append(name)
        if "--check" not in sys.argv:
            target.write_text(text)
    if stale and "--check" in sys.argv:
        print(f"out of date, run {Path(__file__).name}: {', '.join(stale)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
