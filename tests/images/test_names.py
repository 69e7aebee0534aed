"""What the text `image=` means: a name is a name, whatever lies in the working directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from microsandbox import ImageNotFoundError, InvalidConfigError, PullPolicy, Sandbox


async def test_a_folder_of_its_name_does_not_change_an_image(
    local: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "python" / "bin").mkdir(parents=True)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("python", "a/b"):
        with pytest.raises(ImageNotFoundError, match=rf"begins with / or \./: .*write \./{name}"):
            await Sandbox.create("box", image=name, pull_policy=PullPolicy.NEVER, backend=local)
    assert (await Sandbox.list(backend=local)).sandboxes == []


async def test_a_directory_in_which_nothing_runs_is_refused(
    local: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "python").mkdir()
    monkeypatch.chdir(tmp_path)
    for image in ("./python", tmp_path / "python", Path("python"), str(tmp_path / "python")):
        with pytest.raises(InvalidConfigError, match="has no /bin and no default program"):
            await Sandbox.create("box", image=image, backend=local)
    assert (await Sandbox.list(backend=local)).sandboxes == []
