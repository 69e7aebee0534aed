"""What notebooks show: hostile text stays text, and long output its end."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from microsandbox import LocalBackend, Progress, Sandbox
from microsandbox.testing import MemoryBackend, ScriptResult

HOSTILE = "<script>alert(1)</script>&\"'</pre>"


class Tags(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs)


def scripted(stdout: bytes = b"", stderr: bytes = b"", code: int = 0) -> MemoryBackend:
    backend = MemoryBackend()
    backend.script("prog", lambda call: ScriptResult(stdout, stderr, code))
    return backend


async def test_output_of_a_guest_is_never_markup() -> None:
    backend = scripted(HOSTILE.encode(), b"\xff\xfe\x00", 4)
    box = await Sandbox.create("box", image="host", backend=backend)
    html = (await box.exec("prog"))._repr_html_()
    assert Tags(html).seen <= {"style", "div", "span", "b", "pre"}
    assert "&lt;script&gt;" in html and "exit 4" in html
    assert "script" not in Tags(box._repr_html_()).seen
    handle = await Sandbox.get("box", backend=backend)
    assert "script" not in Tags(handle._repr_html_()).seen


async def test_long_output_is_shown_by_its_end() -> None:
    lines = "".join(f"line {number}\n" for number in range(100_000))
    box = await Sandbox.create("box", image="host", backend=scripted(lines.encode()))
    html = (await box.exec("prog"))._repr_html_()
    assert len(html) < 100_000
    assert "line 99999" in html and "line 1\n" not in html and f"the end of {len(lines):,} bytes" in html


def test_a_title_is_escaped() -> None:
    progress = Progress(HOSTILE)
    progress(1 << 20, 4 << 20)
    html = progress._repr_html_()
    assert "script" not in Tags(html).seen and "1.0 of 4.0 MiB" in html


async def test_metrics_are_curves_with_axes(home: Path) -> None:
    async with await Sandbox.create("box", image="host", backend=LocalBackend(home=home)) as box:
        stream = await box.metrics_stream(0.05)
        assert "no sample yet" in stream._repr_html_()
        await stream.show(3)
        html = stream._repr_html_()
    assert html.count("<polyline") == 2 and "MiB" in html and "%" in html
    assert Tags(html).seen <= {"style", "div", "svg", "text", "path", "polyline"}


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env={**os.environ, **environment}
    )


def test_scripts_get_no_progress_output() -> None:
    done = run("from microsandbox import Progress\nwith Progress('x') as p: p(1, 2)")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_terminal_gets_one_line_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for wanted, said in (("1", True), ("0", False)):
        terminal = Terminal()
        monkeypatch.setenv("MSB_PROGRESS", wanted)
        monkeypatch.setattr(sys, "stderr", terminal)
        with Progress("upload") as progress:
            progress(1 << 20, 2 << 20)
        assert (" 50 %" in terminal.getvalue()) is said
        assert "\n" not in terminal.getvalue()


def test_a_progress_bar_by_default_waits_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    from microsandbox import _progress

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("MSB_PROGRESS", "1")
    for patience, said in ((60.0, False), (0.0, True)):
        monkeypatch.setattr(_progress, "_PATIENCE", patience)
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        with _progress.bar("loading x", None) as callback:
            assert callback is not None
            callback(1 << 20, 2 << 20)
        assert ("loading x" in terminal.getvalue()) is said
    mine: list[tuple[int, int | None]] = []
    with _progress.bar("loading x", lambda done, total: mine.append((done, total))) as callback:
        assert callback is not None
        callback(1, None)
    assert mine == [(1, None)]
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with _progress.bar("loading x", None) as callback:
        assert callback is None


def test_pictures_are_not_loaded_by_the_import() -> None:
    program = "import sys, microsandbox; microsandbox.Sandbox; print([m for m in sys.modules if 'picture' in m or 'html' in m])"
    assert run(program).stdout == "[]\n"
