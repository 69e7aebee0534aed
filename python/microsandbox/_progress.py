"""Where something that takes long shows itself: a notebook's output, a terminal's line, or nowhere."""

from __future__ import annotations

import os
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Union

if TYPE_CHECKING:
    from collections.abc import Callable

    _Callback = Callable[[int, Union[int, None]], None]

#: A transfer that ends sooner shows no bar unless the caller asked for one.
_PATIENCE = 1.0


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    current = shell.get_ipython() if shell is not None else None
    # The kernel of a notebook has one; IPython in a terminal has not.
    return current is not None and getattr(current, "kernel", None) is not None


class Display:
    """One place that is updated: a context manager. `MSB_PROGRESS=0` shows nothing anywhere."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._has_line = False
        wanted = os.environ.get("MSB_PROGRESS") != "0"
        self._notebook = wanted and _in_notebook()
        self._terminal = wanted and not self._notebook and sys.stderr is not None and sys.stderr.isatty()

    @property
    def is_seen(self) -> bool:
        """Whether there is a notebook or a terminal to show it in."""
        return self._notebook or self._terminal

    def update(self, shown: object, line: str) -> None:
        """Shows an object that has a picture, or the line."""
        if self._notebook:
            if self._handle is None:
                from IPython.display import display  # type: ignore[import-not-found]

                self._handle = display(shown, display_id=True)
            else:
                self._handle.update(shown)
        elif self._terminal:
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()
            self._has_line = True

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._has_line:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


class Progress:
    """A bar for a transfer: the callback of `copy_from_host(progress=)` and `copy_to_host(progress=)`, for `with`.

    It shows itself in a notebook and in a terminal (on standard error), and not at all in a script.

    Example:
        >>> with Progress("upload") as shown:
        ...     await sb.fs.copy_from_host("data.bin", "/data.bin", progress=shown)
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._display = Display()
        self._done, self._total = 0, 0
        self._quiet_until = 0.0

    def __call__(self, done: int, total: int | None) -> None:
        """`done` of `total` bytes."""
        self._done, self._total = done, total or 0
        if time.monotonic() < self._quiet_until:
            return
        share = f"{100 * done // self._total:3d} %" if self._total else ""
        self._display.update(self, f"{self._title}  {share}  {done / (1 << 20):.1f} MiB")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        self._display.__exit__(*exc)

    def _repr_html_(self) -> str:
        from . import _notebook

        return _notebook.progress(self._title, self._done, self._total)


def is_seen() -> bool:
    """Whether something that takes long would be seen anywhere."""
    return Display().is_seen


def bar(title: str, given: _Callback | None) -> AbstractContextManager[_Callback | None]:
    """The callback of an operation that may take long: the caller's, or a bar once it takes longer than a second, or,
    without a notebook or a terminal, none."""
    if given is not None:
        return nullcontext(given)
    shown = Progress(title)
    if not shown._display.is_seen:
        return nullcontext(None)
    shown._quiet_until = time.monotonic() + _PATIENCE
    return shown
