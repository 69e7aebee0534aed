"""Every block of Python in the documents runs and prints what the page says; the site is built from them."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import microsandbox
import pytest
from homes import REPOSITORY
from registry import FakeRegistry

GUIDE = REPOSITORY / "docs" / "guide"
PAGES = sorted(path.relative_to(GUIDE).as_posix() for path in GUIDE.rglob("*.md"))


def page_runs(page: Path, place: Path | None = None) -> str:
    """How its programs fail, in `place` as their working directory."""
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("pages.py"), page],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=100,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode == 0) is (done.stderr == ""), done.stderr
    return done.stderr


# The page whose images come from a registry.
PULLING = "how-to/images.md"


@pytest.mark.parametrize("page", [page for page in PAGES if page != PULLING])
def test_the_programs_of_a_page_print_what_it_says(home: Path, page: str) -> None:
    assert page_runs(GUIDE / page) == ""
    assert list(home.glob("sandboxes/*")) == []


@pytest.mark.fresh_home
def test_the_programs_of_the_page_about_images_pull(
    home: Path, tmp_path: Path, fake_registry: FakeRegistry, busybox_archive: Path
) -> None:
    """As the page says, but from a registry on this machine."""
    reference = fake_registry.add(busybox_archive, "busybox", "1")
    text = (GUIDE / PULLING).read_text().replace("docker.io/library/busybox:1", "busybox:1")
    page = tmp_path / "images.md"
    page.write_text(text.replace("busybox:1", reference))
    assert page_runs(page, tmp_path) == ""
    assert list(home.glob("sandboxes/*")) == []


def test_a_page_that_is_wrong_is_noticed(home: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nx = await __import__('asyncio').sleep(0, 1)\nprint(x)\n```\n\n```text\n2\n```\n")
    assert page_runs(page).startswith("block 0 printed\n1\n")
    page.write_text(textwrap.dedent(page.read_text()).replace("\n2\n", "\n1\n"))
    assert page_runs(page) == ""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--config-file", "docs/mkdocs.yml"]
    done = subprocess.run([*command, "--site-dir", target], cwd=REPOSITORY, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    return target


def reference(site: Path) -> str:
    """The pages made from docstrings."""
    pages = [*sorted((site / "reference").glob("*.html")), site / "errors.html"]
    return "\n".join(page.read_text() for page in pages)


def words(html: str) -> str:
    return re.sub(r"<[^>]+>", "", html)


def test_every_page_is_built_and_loads_nothing_external(site: Path) -> None:
    for page in PAGES:
        text = (site / page).with_suffix(".html").read_text()
        loaded = re.findall(r"(?:src|href)=\"(https?://[^\"]+)\"[^>]*(?:rel=\"stylesheet\"|></script>)", text)
        assert loaded == []


def test_the_reference_shows_each_public_name_once(site: Path) -> None:
    shown = re.findall(r"<h[23] id=\"microsandbox\.(\w+)\"", reference(site))
    assert sorted(shown) == sorted({*microsandbox.__all__, "testing", "otel"})


def test_the_reference_shows_nothing_private(site: Path) -> None:
    text = reference(site)
    assert re.findall(r"microsandbox\._(?!_version__)\w+", text) == []
    assert re.findall(r"\b(?:Later|Native)[A-Z]\w+", text) == []
    # A member of a private base is a member of the public class.
    assert 'id="microsandbox.Sandbox.create_with_progress"' in text


def test_examples_of_docstrings_are_blocks_of_python(site: Path) -> None:
    text = reference(site)
    assert text.count("<strong>Example</strong>") > 300
    assert "Example:" not in words(text)
    assert ">>>" not in words(text).replace("&gt;", ">")


def test_the_landing_page_shows_what_it_is(site: Path) -> None:
    text = words((site / "index.html").read_text())
    for part in ("pip install", "Three things it does", "Isolation", "can be an escape"):
        assert part in text
