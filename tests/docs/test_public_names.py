"""What docs/public_names.py makes of a package: the names, bases, keywords and examples that users see."""

from __future__ import annotations

import importlib.util
import textwrap
from collections.abc import Iterator
from types import ModuleType

import griffe
import pytest
from homes import REPOSITORY

BOX = """
from typing import TypedDict, Unpack
from ._native import NativeBox
from ._signature import spelled_out
from ._kinds import Kind

class Keywords(TypedDict, total=False):
    kind: Kind | None
    replace: bool
    size: int

class Later:
    def fork(self, kind: Kind) -> None:
        \"\"\"Copies it.\"\"\"

class Box(Later, ValueError):
    def __init__(self, native: NativeBox) -> None: ...

    @spelled_out(Keywords, size=3)
    def create(name: str, **options: Unpack[Keywords]) -> None:
        \"\"\"Makes one.

        Example: `async with await Box.create("x") as box: print(box); box.close()`
        \"\"\"
"""
MODULES = {
    "__init__.py": "from ._box import Box\nfrom ._kinds import Kind\n__all__ = ['Box', 'Kind']\n",
    "_box.py": BOX,
    "_kinds.py": "class Kind:\n    def __init__(self, word: str) -> None: ...\n",
    "_native.py": "",
    "_microsandbox.pyi": "class NativeBox: ...\n",
    "_signature.py": "",
}


def extension() -> ModuleType:
    spec = importlib.util.spec_from_file_location("public_names", REPOSITORY / "docs" / "public_names.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def package() -> Iterator[griffe.Module]:
    modules = {name: text.replace("._native", "._microsandbox") for name, text in MODULES.items()}
    extensions = griffe.load_extensions(extension().PublicNames())
    with griffe.temporary_visited_package("microsandbox", modules, extensions=extensions) as found:
        yield found


def test_an_exported_name_belongs_to_the_package(package: griffe.Module) -> None:
    assert package["Box"].path == package["Box"].canonical_path == "microsandbox.Box"
    kind = package["Box.fork"].parameters["kind"].annotation
    assert kind.canonical_path == "microsandbox.Kind"


def test_a_private_base_is_merged_into_the_class(package: griffe.Module) -> None:
    assert [str(base) for base in package["Box"].bases] == ["ValueError"]
    assert package["Box.fork"].docstring.value == "Copies it."


def test_a_private_constructor_is_hidden(package: griffe.Module) -> None:
    assert "__init__" not in package["Box"].members
    assert "__init__" in package["Kind"].members


def test_a_group_of_keywords_is_spelled_out(package: griffe.Module) -> None:
    shown = [(each.name, str(each.annotation), each.default) for each in package["Box.create"].parameters]
    assert [(name, kind, None if default is None else str(default)) for name, kind, default in shown] == [
        ("name", "str", None),
        ("kind", "Kind | None", "None"),
        ("replace", "bool", "False"),
        ("size", "int", "3"),
    ]


def test_an_example_on_one_line_becomes_a_block(package: griffe.Module) -> None:
    block = """
        ```python
        async with await Box.create("x") as box:
            print(box)
            box.close()
        ```
    """
    assert textwrap.dedent(block).strip() in package["Box.create"].docstring.value


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("It.\n\nExample::\n\n    with x:\n        y()\n", "with x:\n    y()"),
        ("It.\n\nExample:\n    >>> 1 + 1\n    2\n", "1 + 1\n# 2"),
        ("It.\n\nExample: `except E as e: print(e)`", "except E as e:\n    print(e)"),
        ("It.\n\nExample: `assert a\n        == b`.", "assert a == b"),
    ],
)
def test_every_form_of_example_becomes_a_block(text: str, code: str) -> None:
    shown = extension().rendered(text)
    assert f"**Example**\n\n```python\n{code}\n```" in shown
    assert "Example:" not in shown
