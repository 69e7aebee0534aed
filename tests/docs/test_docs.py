"""Every block of Python in the documents runs and prints what the page says; the site is built from them."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from homes import REPOSITORY

GUIDE = REPOSITORY / "docs" / "guide"
PAGES = sorted(path.relative_to(GUIDE).as_posix() for path in GUIDE.rglob("*.md"))


def page_runs(page: Path) -> str:
    """What its programs have to complain about."""
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("pages.py"), page],
        capture_output=True,
        text=True,
        timeout=100,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode == 0) is (done.stderr == ""), done.stderr
    return done.stderr


@pytest.mark.parametrize("page", PAGES)
def test_the_programs_of_a_page_print_what_it_says(home: Path, page: str) -> None:
    assert page_runs(GUIDE / page) == ""
    assert list(home.glob("sandboxes/*")) == []


def test_a_page_that_is_wrong_is_noticed(home: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nx = await __import__('asyncio').sleep(0, 1)\nprint(x)\n```\n\n```text\n2\n```\n")
    assert page_runs(page).startswith("block 0 printed\n1\n")
    page.write_text(textwrap.dedent(page.read_text()).replace("\n2\n", "\n1\n"))
    assert page_runs(page) == ""


def test_the_site_is_built_and_has_every_page(tmp_path: Path) -> None:
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--config-file", "docs/mkdocs.yml"]
    done = subprocess.run([*command, "--site-dir", site], cwd=REPOSITORY, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    for page in PAGES:
        assert (site / page).with_suffix(".html").exists()
    reference = (site / "reference.html").read_text()
    for name in ("exec_detached", "copy_from_host", "SandboxStatus", "instrument"):
        assert name in reference
    # Nothing is loaded from elsewhere.
    loaded = re.findall(r"(?:src|href)=\"(https?://[^\"]+)\"[^>]*(?:rel=\"stylesheet\"|></script>)", reference)
    assert loaded == []
