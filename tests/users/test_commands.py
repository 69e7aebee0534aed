"""Verbs of `msb` about jobs, pauses, changes and patches, as a script uses them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Msb = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def msb(home: Path) -> Iterator[Msb]:
    command = Path(sys.executable).parent / "msb"

    def run(*arguments: str, code: int = 0, given: str | None = None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [command, *arguments],
            env={**os.environ, "MSB_HOME": str(home)},
            capture_output=True,
            text=True,
            timeout=60,
            input=given,
            stdin=subprocess.DEVNULL if given is None else None,
        )
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        return done

    run("create", "host", "-n", "box", "-m", "128M", "--max-memory", "256M")
    yield run
    run("rm", "-f", "box")


def test_a_job_is_started_listed_fed_signalled_and_attached_to(msb: Msb) -> None:
    started = msb("exec", "-d", "box", "--", "sh", "-c", "trap 'exit 7' USR1; while true; do sleep 0.02; done")
    job = started.stdout.strip()
    assert f"--job {job}" in started.stderr
    assert msb("jobs", "box", "-q").stdout.split() == [job]
    (entry,) = json.loads(msb("jobs", "box", "--format", "json").stdout)
    assert (entry["id"], entry["state"], entry["exit_code"], entry["command"][0]) == (job, "running", None, "sh")
    assert "running" in msb("jobs", "box").stdout
    msb("signal", "box", "--job", job, "--signal", "10")
    assert msb("attach", "box", "--job", job, "--no-stdin", code=7).stdout == ""
    assert msb("jobs", "box").stderr == "No jobs found.\n"
    assert "exited (7)" in msb("jobs", "box", "--all").stdout
    failed = msb("signal", "box", "--job", job, "--signal", "9", code=1)
    assert failed.stderr == f"error: job {job} has ended\n"
    assert "no job nonsense" in msb("attach", "box", "--job", "nonsense", code=1).stderr
    assert "input" in msb("eof", "box", "--job", job, code=1).stderr or "ended" in failed.stderr


def test_pause_resume_and_modify(msb: Msb) -> None:
    msb("pause", "box")
    assert "Paused" in msb("list").stdout
    refused = msb("exec", "box", "--", "true", code=1).stderr
    assert "status Paused" in refused and "hint: let it go on with: msb resume box" in refused
    msb("resume", "box")
    assert msb("exec", "box", "--", "echo", "on").stdout == "on\n"
    told = json.loads(msb("modify", "box", "-m", "256M", "-e", "MODE=fast", "--format", "json").stdout)
    assert (told["applied"], [change["disposition"] for change in told["changes"]]) == (True, ["live", "live"])
    assert msb("exec", "box", "--", "sh", "-c", "echo $MODE").stdout == "fast\n"
    refused = msb("modify", "box", "-m", "1G", "--max-memory", "1G", code=1)
    assert "cannot apply modification: memory" in refused.stderr
    table = msb("modify", "box", "--label", "a=b", "--dry-run").stdout
    assert table.splitlines()[0].split() == ["FIELD", "BEFORE", "AFTER", "WHEN"] and "label a" in table
    assert msb("modify", "box").stderr == "Nothing to change.\n"


def test_patches_from_the_command_line(msb: Msb, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_text("copied\n")
    copied = msb(
        "run", "host", "--copy", f"{tmp_path / 'tree'}:/srv/tree", "--copy-file", f"{tmp_path / 'tree' / 'file'}:/srv/one",
        "--mkdir", "/srv/empty", "--rm", "/etc/hostname", "--",
        "sh", "-c", "cat /srv/tree/file /srv/one; ls -d /srv/empty; test -e /etc/hostname || echo gone",
    )  # fmt: skip
    assert copied.stdout.splitlines() == ["copied", "copied", "/srv/empty", "gone"]
    assert "absolute path" in msb("run", "host", "--copy", "a:b", "--", "true", code=2).stderr
    assert "patch failed" in msb("run", "host", "--copy", "/no/such:/x", "--", "true", code=2).stderr
