"""Verbs of `msb` about jobs, pauses, changes and patches, as a script uses them."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pace import within

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
    assert "status Paused" in refused and "hint: to resume the sandbox: msb resume box" in refused
    msb("resume", "box")
    assert msb("exec", "box", "--", "echo", "on").stdout == "on\n"
    shown = json.loads(msb("modify", "box", "-m", "256M", "-e", "MODE=fast", "--format", "json").stdout)
    assert (shown["applied"], [change["disposition"] for change in shown["changes"]]) == (True, ["live", "live"])
    assert msb("exec", "box", "--", "sh", "-c", "echo $MODE").stdout == "fast\n"
    refused = msb("modify", "box", "-m", "1G", "--max-memory", "1G", code=1)
    assert "cannot apply modification: memory" in refused.stderr
    table = msb("modify", "box", "--label", "a=b", "--dry-run").stdout
    assert table.splitlines()[0].split() == ["FIELD", "BEFORE", "AFTER", "WHEN"] and "label a" in table
    assert msb("modify", "box").stderr == "The sandbox has this configuration already; nothing was changed.\n"


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


def test_one_job_is_inspected_read_and_killed(msb: Msb) -> None:
    job = msb(
        "exec",
        "-d",
        "box",
        "--",
        "sh",
        "-c",
        "echo mine; echo problem >&2; while [ ! -e /go ]; do sleep 0.02; done; echo got",
    ).stdout.strip()
    msb("exec", "box", "--", "echo", "another program")
    assert json.loads(msb("inspect", "box", "--job", job, "--format", "json").stdout)["state"] == "running"
    assert job in msb("inspect", "box", "--job", job).stdout
    assert msb("logs", "box", "--job", job).stdout.splitlines() == ["mine", "problem"]
    assert msb("logs", "box", "--job", job, "--tail", "1", "--source", "stdout").stdout == "mine\n"
    following = subprocess.Popen(
        [Path(sys.executable).parent / "msb", "logs", "box", "--job", job, "-f"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert following.stdout is not None and following.stdout.readline() == "mine\n"
        msb("exec", "box", "--", "touch", "/go")
        # It ends with the job, not with the sandbox.
        assert following.stdout.read() == "problem\ngot\n"
        assert following.wait(60) == 0
    finally:
        following.kill()
        following.communicate()
    endless = msb("exec", "-d", "box", "--", "sleep", "600").stdout.strip()
    msb("kill", "box", "--job", endless)
    assert msb("attach", "box", "--job", endless, "--no-stdin", code=128 + 9).stdout == ""
    assert msb("exec", "box", "--", "echo", "still there").stdout == "still there\n"
    assert "one sandbox" in msb("kill", "box", "other", "--job", endless, code=2).stderr


def test_wait_reports_the_exit_as_json(msb: Msb) -> None:
    assert "no stop was seen" not in msb("pause", "box", "--guest-flush", "required").stderr
    msb("resume", "box")
    msb("stop", "box")
    (end,) = json.loads(msb("wait", "box", "--format", "json").stdout)
    assert (end["name"], end["status"], end["exit_code"], end["signal"]) == ("box", "Stopped", 0, None)
    assert end["observed_at"]


def test_the_group_of_verbs_and_those_that_are_not_there_yet(msb: Msb) -> None:
    assert msb("sandbox", "list", "-q").stdout == msb("sbx", "ls", "-q").stdout == "box\n"
    for words, hint in (
        (("snapshot", "create", "s", "--from", "box"), "when snapshots land"),
        (("self", "update", "-f"), "pip install --upgrade microsandbox"),
    ):
        refused = msb(*words, code=1)
        verb = " ".join(words[:2] if words[0] == "self" else words[:1])
        assert refused.stderr.startswith(f"error: msb {verb} is not supported\n") and hint in refused.stderr


def test_a_program_in_a_sandbox_becomes_a_command(msb: Msb, home: Path, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    installed = msb(
        "install",
        "host",
        "-n",
        "upper",
        "-m",
        "128M",
        "-e",
        "WHO=it's me",
        "-v",
        f"{tmp_path}/shared:/shared",
        "--",
        "sh",
        "-c",
        'echo "$WHO: $*" | tr a-z A-Z; cat; echo "$1" >> /kept; cat /kept',
        "upper",
    )
    command = Path(installed.stdout.strip())
    assert command == home / "bin" / "upper" and f"add {home}/bin to PATH" in installed.stderr

    def call(*arguments: str) -> list[str]:
        done = subprocess.run([command, *arguments], input="from here\n", capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    assert call("one", "a b") == ["IT'S ME: ONE A B", "from here", "one"]
    # Its files are kept from call to call.
    assert call("two") == ["IT'S ME: TWO", "from here", "one", "two"]
    assert "command upper exists already" in msb("install", "host", "-n", "upper", "--", "true", code=1).stderr
    msb("install", "host", "-n", "upper", "-f", "--tmp", "--", "sh", "-c", "echo x >> /kept; cat /kept; exit 3")
    for _ in range(2):
        done = subprocess.run([command], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (3, "x\n")
    (entry,) = json.loads(msb("install", "--list", "--format", "json").stdout)
    assert (entry["name"], entry["image"], entry["tmp"], entry["path"]) == ("upper", "host", True, str(command))
    assert msb("install", "-l").stdout.splitlines()[1].split()[:3] == ["upper", "host", "no"]
    # A file that msb did not make is neither replaced nor removed.
    (home / "bin" / "theirs").write_text("#!/bin/sh\n")
    assert "was not made by msb install" in msb("install", "host", "-n", "theirs", "-f", "--", "true", code=1).stderr
    refused = msb("uninstall", "theirs", "upper", "../config.json", code=1)
    assert refused.stdout == "upper\n" and refused.stderr.count("was made by msb install") == 2
    assert not command.exists() and (home / "bin" / "theirs").exists() and (home / "config.json").exists()
    assert "msb run" not in msb("install", "host", "-n", "x", "-m", "lots", "--", "true", code=2).stderr
    assert "--from is for libkrunfw only" in msb("install", "host", "--from", "x", code=2).stderr
    msb("rm", "-f", "upper")


def test_words_of_a_command_line_are_bytes(msb: Msb) -> None:
    odd = os.fsdecode(b"caf\xe9")
    script = 'printf %s "$WORD-$1" | od -An -c'
    done = msb("exec", "box", "-e", f"WORD={odd}", "-w", "/tmp", "--", "sh", "-c", script, "sh", odd)
    assert done.stdout.split() == ["c", "a", "f", "351", "-", "c", "a", "f", "351"]


@pytest.mark.parametrize("closed", ["0", "1", "2", "0 1 2"])
def test_a_closed_stream_takes_nothing_else_along(msb: Msb, home: Path, closed: str) -> None:
    # A descriptor that `msb` opens itself must not get the number of a standard stream, and with it the program's output.
    closing = " ".join(f"{number}>&-" for number in closed.split())
    program = 'exec "$0" exec box -- sh -c "cat; echo out; echo err >&2; exit 3" ' + closing
    done = subprocess.run(
        ["sh", "-c", program, Path(sys.executable).parent / "msb"],
        env={**os.environ, "MSB_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    said = ("" if "1" in closed else "out\n", "" if "2" in closed else "err\n")
    assert (done.returncode, done.stdout, done.stderr) == (3, *said)


def test_secrets_reach_programs_without_being_an_argument(
    msb: Msb, home: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("FIRST", "secret 1")
    file = tmp_path / "variables"
    file.write_text("# a comment\nSECOND=secret 2\nFIRST\nTHIRD=file\n")
    show = ("sh", "-c", 'echo "$FIRST,$SECOND,$THIRD"')
    assert msb("exec", "box", "-e", "FIRST", "--", *show).stdout == "secret 1,,\n"
    shown = msb("exec", "box", "--env-file", str(file), "-e", "THIRD=flag", "--", *show).stdout
    assert shown == "secret 1,secret 2,flag\n"
    assert msb("exec", "box", "--env-file", "-", "--", *show, given="SECOND=x = y\n").stdout == ",x = y,\n"
    msb("create", "host", "-n", "kept", "-q", "--env-file", str(file))
    try:
        assert msb("exec", "kept", "--", *show).stdout == "secret 1,secret 2,file\n"
        for form in ("table", "json"):
            shown = msb("inspect", "kept", "--format", form).stdout
            assert "SECOND" in shown and "secret" not in shown, shown
            assert "secret 2" in msb("inspect", "kept", "--format", form, "--show-env").stdout
    finally:
        msb("rm", "-f", "kept")
    missing = msb("exec", "box", "-e", "NOT_SET_ANYWHERE", "--", "true", code=2).stderr
    assert "NOT_SET_ANYWHERE is not set in this shell" in missing
    file.write_text("A=1\nB C=hunter2\n")
    broken = msb("exec", "box", "--env-file", str(file), "--", "true", code=1).stderr
    assert "line 2" in broken and "hunter2" not in broken
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (home / "db").glob("msb.db*")}
    assert modes["msb.db"] == 0o600 and not any(mode & 0o077 for mode in modes.values()), modes


def test_a_database_that_others_could_read_is_closed_to_them(msb: Msb, home: Path) -> None:
    database = home / "db" / "msb.db"
    database.chmod(0o644)
    msb("list")
    assert stat.S_IMODE(database.stat().st_mode) == 0o600


ACTIVE = "\x1b]0;title\x07 \x9b31m \u202e \x7f"


def on_a_terminal(home: Path, *arguments: str) -> str:
    """What `msb` writes to a terminal that is its output and its error output."""
    ours, theirs = pty.openpty()
    command = [Path(sys.executable).parent / "msb", *arguments]
    environment = {**os.environ, "MSB_HOME": str(home), "NO_COLOR": "1"}
    with subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        written = b""
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while piece := os.read(ours, 65536):
                written += piece
        process.wait(within(60))
    os.close(ours)
    return written.decode()


def test_a_terminal_gets_no_control_sequence_of_a_guest(msb: Msb, home: Path, tmp_path: Path) -> None:
    msb("exec", "box", "-e", f"ACTIVE={ACTIVE}", "--", "sh", "-c", 'printf "%s\\0\\n" "$ACTIVE"')
    make = 'mkdir -p /tmp/tree; mkfifo "/tmp/tree/$ACTIVE"; echo > "/tmp/tree/plain$ACTIVE"'
    msb("exec", "box", "-e", f"ACTIVE={ACTIVE}", "--", "sh", "-c", make)
    shown = {
        "logs": on_a_terminal(home, "logs", "box"),
        "json": on_a_terminal(home, "logs", "box", "--json"),
        "copy": on_a_terminal(home, "copy", "box:/tmp/tree", str(tmp_path)),
        "missing": on_a_terminal(home, "copy", f"box:/tmp/{ACTIVE}", str(tmp_path)),
        "program": on_a_terminal(home, "exec", "box", "--no-tty", "--", f"/tmp/{ACTIVE}"),
    }
    for what, text in shown.items():
        assert "title" in text, (what, text)
        # The bar of a copy is moved by sequences of our own.
        assert not [part for part in ("\x1b]", "\x07", "\x9b", "\u202e", "\x7f") if part in text], (what, text)
    assert ACTIVE in on_a_terminal(home, "logs", "box", "--raw")
    assert ACTIVE in msb("logs", "box").stdout, "a pipe gets the bytes"
