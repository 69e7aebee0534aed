"""The notebook of the examples: executed by a kernel without a window, and shown by a real browser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import nbformat
import pytest
from homes import REPOSITORY
from nbclient import NotebookClient
from nbconvert import HTMLExporter

NOTEBOOK = REPOSITORY / "examples" / "notebook.ipynb"
# The IHDR chunk of a PNG (RFC 2083, section 4.1.1) holds its size.
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def executed(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    # What Jupyter writes stays here.
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=60, kernel_name="python3", allow_errors=False).execute()
    assert os.listdir(home / "sandboxes") == []
    return notebook


def shown(cell: Any, kind: str) -> list[str]:
    return ["".join(output.data[kind]) for output in cell.outputs if kind in output.get("data", {})]


def printed(cell: Any) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_notebook_runs_and_shows_pictures(executed: Any, tmp_path: Path) -> None:
    cells = [cell for cell in executed.cells if cell.cell_type == "code"]
    made, ran, failed, limit, files, watched, gone = cells
    assert ">notebook</b>" in shown(made, "text/html")[0]
    assert "exit 0" in shown(ran, "text/html")[0] and "499999500000" in shown(ran, "text/html")[0]
    html = shown(failed, "text/html")[0]
    assert "exit 3" in html and "some words" in html and 'class="err">and a complaint' in html
    assert "exec timed out after 0.5 s" in printed(limit)
    assert "24.4 of 24.4 MiB" in shown(files, "text/html")[-1]
    assert "('/tmp/data.bin', 25600000)" in shown(files, "text/plain")[-1]
    curves = shown(watched, "text/html")[-1]
    assert curves.count("<polyline") == 2 and len(re.findall(r"points=\"([^\"]+)\"", curves)[0].split()) == 6
    assert printed(gone) == "gone\n"
    look_at(executed, tmp_path)


def look_at(executed: Any, tmp_path: Path) -> None:
    """A real browser draws it, with what it drew in its own tree."""
    browser = shutil.which("chromium")
    assert browser is not None, "scripts/install-packages test installs it"
    page = tmp_path / "notebook.html"
    page.write_text(HTMLExporter(embed_images=True).from_notebook_node(executed)[0])
    common = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    picture = tmp_path / "notebook.png"
    for arguments in (
        [f"--screenshot={picture}", "--window-size=1000,2400", "--hide-scrollbars"],
        ["--dump-dom"],
    ):
        done = subprocess.run(
            [*common, *arguments, page.as_uri()],
            capture_output=True,
            timeout=90,
            env={**os.environ, "HOME": str(tmp_path)},
        )
        assert done.returncode == 0, done.stderr.decode()[-2000:]
    head = picture.read_bytes()[:24]
    assert head.startswith(PNG) and (int.from_bytes(head[16:20]), int.from_bytes(head[20:24])) == (1000, 2400)
    # A blank page of this size takes a few thousand bytes.
    assert picture.stat().st_size > 50_000
    dom = done.stdout.decode()
    assert "<polyline" in dom and "exit 3" in dom and "499999500000" in dom
    if kept := os.environ.get("KEEP_NOTEBOOK_PICTURE"):
        shutil.copy(picture, kept)
