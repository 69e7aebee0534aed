"""Programs that run to their end: results, options, failures."""

from __future__ import annotations

import asyncio
import inspect
import time

import pytest
from backends import Harness, speaker
from microsandbox import (
    ExecFailedError,
    ExecTimeoutError,
    NoDefaultCommandError,
    Rlimit,
    Sandbox,
    Stdin,
)
from pace import within


async def test_both_streams_and_the_status_come_back(shared_box: Sandbox) -> None:
    output = await shared_box.exec(*speaker("to out\n", "to err\n", 3))
    assert output.stdout_bytes == b"to out\n"
    assert output.stderr_bytes == b"to err\n"
    assert output.stdout_text == "to out\n"
    assert output.exit_code == 3
    assert output.success is False
    assert output.signal is None
    assert output.timed_out is False and output.oom_killed is False
    assert output.stdout_total == 7 and output.stderr_total == 7
    assert output.stdout_truncated is False
    assert output.duration >= 0


async def test_a_program_that_does_not_exist(shared_box: Sandbox) -> None:
    with pytest.raises(ExecFailedError) as caught:
        await shared_box.exec("no-such-program")
    assert caught.value.kind == "not_found"
    assert caught.value.errno == 2
    assert caught.value.errno_name == "ENOENT"
    assert isinstance(caught.value, OSError)
    assert "no-such-program" in str(caught.value)


async def test_bad_arguments_come_out_of_the_call_itself(shared_box: Sandbox) -> None:
    for call in (
        lambda: shared_box.exec("echo", "not a list"),  # type: ignore[arg-type]
        lambda: shared_box.exec("echo", {"no_such_option": 1}),  # type: ignore[arg-type]
        lambda: shared_box.exec("echo", stdin="text"),  # type: ignore[arg-type]
        lambda: shared_box.exec("echo", rlimits=[("nofile", 1)]),  # type: ignore[list-item]
    ):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(ValueError, match="non-negative"):
        shared_box.exec("echo", timeout=-1)
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        shared_box.exec("echo", no_such=1)  # type: ignore[call-arg]


async def test_exec_is_a_coroutine(shared_box: Sandbox) -> None:
    call = shared_box.exec("true")
    assert inspect.iscoroutine(call)
    assert (await asyncio.create_task(call)).exit_code == 0


async def test_no_default_command(shared_box: Sandbox) -> None:
    with pytest.raises(NoDefaultCommandError):
        await shared_box.exec_default()


async def test_the_default_command_is_entrypoint_then_cmd(harness: Harness) -> None:
    box = await harness.create("box", entrypoint=["echo", "one"], cmd=["two"])
    assert (await box.exec_default()).stdout_text == "one two\n"


@pytest.mark.needs("programs")
async def test_arguments_arrive_byte_for_byte(shared_box: Sandbox) -> None:
    arguments = ["", " ", "a b", "'\"$`\\", "ünïcödé", "-n", "\n", "x" * 100_000]
    output = await shared_box.exec(
        "python3",
        ["-c", "import sys; print(sys.argv[1:] == eval(sys.stdin.read()))", *arguments],
        stdin=Stdin.bytes(repr(arguments).encode()),
    )
    assert output.stdout_text == "True\n", output.stderr_text


async def test_options_as_keywords_and_as_a_mapping(shared_box: Sandbox) -> None:
    by_keyword = await shared_box.exec("sh", ["-c", "echo $A; pwd"], env={"A": "1"}, cwd="/tmp")
    by_mapping = await shared_box.exec("sh", {"args": ["-c", "echo $A; pwd"], "env": {"A": "1"}, "cwd": "/tmp"})
    assert by_keyword.stdout_text == by_mapping.stdout_text == "1\n/tmp\n"


async def test_the_environment_is_layered_and_nothing_leaks_in(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY_OF_THE_HOST", "secret")
    box = await harness.create("box", env={"A": "box", "B": "box"})
    output = await box.exec("env", env={"B": "call"})
    lines = dict(line.split("=", 1) for line in output.stdout_text.splitlines())
    assert lines["A"] == "box" and lines["B"] == "call"
    assert lines["HOME"] == "/root"
    assert "/usr/bin" in lines["PATH"].split(":")
    assert "CANARY_OF_THE_HOST" not in lines


@pytest.mark.needs("programs")
async def test_the_scripts_directory_is_first_on_the_path(shared_box: Sandbox) -> None:
    assert (await shared_box.shell("echo $PATH")).stdout_text.startswith("/.msb/scripts:")


@pytest.mark.needs("programs")
async def test_workdir_user_and_shell_of_the_sandbox(harness: Harness) -> None:
    box = await harness.create("box", workdir="/usr", shell="/bin/bash")
    output = await box.shell("pwd; echo $BASH_VERSION; id -u")
    first, second, third = output.stdout_text.splitlines()
    assert first == "/usr"
    assert second
    assert third == "0"


@pytest.mark.needs("programs")
async def test_exec_as_another_user(shared_box: Sandbox) -> None:
    output = await shared_box.exec("sh", ["-c", "id -u; id -g; echo $HOME"], user="nobody")
    uid, gid, _ = output.stdout_text.splitlines()
    assert int(uid) == 65534 and int(gid) == 65534
    assert (await shared_box.exec("id", ["-u"], user="1234:99")).stdout_text == "1234\n"


@pytest.mark.needs("programs")
@pytest.mark.parametrize("tty", [False, True])
@pytest.mark.parametrize("user", ["root", "nobody", "1234:1234"])
async def test_streams_are_opened_by_path(shared_box: Sandbox, user: str, tty: bool) -> None:
    script = (
        "echo out > /dev/stdout; echo err > /dev/stderr; echo fd >> /proc/self/fd/1; exec 7>&1; echo seven > /dev/fd/7"
    )
    output = await shared_box.shell(script, user=user, tty=tty)
    assert sorted((output.stdout_text + output.stderr_text).split()) == ["err", "fd", "out", "seven"]
    assert output.exit_code == 0


@pytest.mark.needs("programs")
@pytest.mark.parametrize("user", ["root", "nobody", "1234:1234"])
async def test_input_is_opened_by_path(shared_box: Sandbox, user: str) -> None:
    assert (await shared_box.exec("cat", ["/dev/stdin"], user=user, stdin=b"given")).stdout_bytes == b"given"
    assert (await shared_box.exec("cat", ["/proc/self/fd/0"], user=user, stdin=b"given")).stdout_bytes == b"given"
    none = await shared_box.exec("cat", ["/dev/stdin"], user=user)
    assert (none.exit_code, none.stdout_bytes, none.stderr_bytes) == (0, b"", b"")


@pytest.mark.needs("programs")
async def test_streams_belong_to_the_user_alone(shared_box: Sandbox) -> None:
    output = await shared_box.shell("stat -Lc '%u %a' /dev/stdin /dev/stdout /dev/stderr", user="1234:99", stdin=b"")
    assert output.stdout_text == "1234 600\n" * 3
    # A program of another user that inherits them writes to them and does not open them again, as everywhere else.
    script = "setpriv --reuid 1234 --regid 99 --clear-groups sh -c 'echo inherited; echo again > /dev/stdout'"
    output = await shared_box.shell(script)
    assert output.stdout_text == "inherited\n" and "denied" in output.stderr_text, output


@pytest.mark.hazard("A5")
@pytest.mark.needs("programs")
@pytest.mark.parametrize("user", ["0:0:0", "1e3", "-1", "4294967295", "root\n", "nosuchuser"])
async def test_a_bad_user_never_becomes_root(shared_box: Sandbox, user: str) -> None:
    from microsandbox import InvalidConfigError

    with pytest.raises((InvalidConfigError, ExecFailedError)):
        await shared_box.exec("id", user=user)


@pytest.mark.hazard("A4")
@pytest.mark.needs("programs")
@pytest.mark.parametrize("cwd", ["/no/such", "/etc/passwd", "/proc/self/fd/3", "/tmp/loop"])
async def test_a_bad_working_directory_has_its_error_kind(shared_box: Sandbox, cwd: str) -> None:
    await shared_box.exec("ln", ["-sfn", "/tmp/loop", "/tmp/loop"])
    with pytest.raises(ExecFailedError) as caught:
        await shared_box.exec("true", cwd=cwd)
    assert caught.value.kind == "bad_cwd"


@pytest.mark.hazard("X8")
@pytest.mark.needs("programs")
async def test_a_failed_start_has_its_error_kind(shared_box: Sandbox) -> None:
    await shared_box.shell(
        "echo data > /tmp/data; printf '#!/no/such/interpreter\\n' > /tmp/interp; chmod 755 /tmp/interp; "
        "printf 'junk that is no program' > /tmp/junk; chmod 755 /tmp/junk; mkdir -p /tmp/dir"
    )
    kinds = {}
    for path in ("/tmp/data", "/tmp/interp", "/tmp/junk", "/tmp/dir", "/tmp/absent"):
        with pytest.raises(ExecFailedError) as caught:
            await shared_box.exec(path)
        kinds[path] = caught.value.kind
    assert kinds["/tmp/data"] == "permission_denied"
    assert kinds["/tmp/interp"] == "not_found"
    assert kinds["/tmp/junk"] == "not_executable"
    assert kinds["/tmp/dir"] == "permission_denied"
    assert kinds["/tmp/absent"] == "not_found"


@pytest.mark.needs("programs")
async def test_death_by_signal_is_reported(shared_box: Sandbox) -> None:
    output = await shared_box.shell("kill -TERM $$")
    assert output.signal == 15
    assert output.exit_code == 128 + 15
    assert output.success is False


async def test_stdin_bytes_and_null(shared_box: Sandbox) -> None:
    assert (await shared_box.exec("cat", stdin=b"some bytes")).stdout_bytes == b"some bytes"
    assert (await shared_box.exec("cat", stdin=Stdin.bytes(b"more"))).stdout_bytes == b"more"
    assert (await shared_box.exec("cat")).stdout_bytes == b""
    assert (await shared_box.exec("cat", stdin=Stdin.null())).stdout_bytes == b""


@pytest.mark.needs("programs")
async def test_a_terminal_joins_both_streams(shared_box: Sandbox) -> None:
    output = await shared_box.shell("tty >/dev/null && echo terminal; echo error >&2", tty=True)
    assert b"terminal" in output.stdout_bytes and b"error" in output.stdout_bytes
    assert output.stderr_bytes == b""


@pytest.mark.needs("programs")
async def test_rlimits_hold(shared_box: Sandbox) -> None:
    output = await shared_box.exec("sh", ["-c", "ulimit -n; ulimit -c"], rlimits=[Rlimit.nofile(77)])
    assert output.stdout_text.splitlines()[0] == "77"


@pytest.mark.needs("programs")
async def test_a_timeout_kills_and_keeps_what_was_said(shared_box: Sandbox) -> None:
    begin = time.monotonic()
    with pytest.raises(ExecTimeoutError) as caught:
        await shared_box.shell("echo before; sleep 1000", timeout=within(0.5))
    assert within(0.4) < time.monotonic() - begin < within(10)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.code == "exec-timeout"
    assert (await shared_box.shell("pgrep sleep || echo none")).stdout_text == "none\n"


STUBBORN = """
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
for way in range(4):
    if os.fork() == 0:
        if way == 1:
            os.setsid()
        if way == 2 and os.fork():
            os._exit(0)
        if way == 3:
            os.setpgid(0, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(1000)
time.sleep(1000)
"""


@pytest.mark.hazard("X5")
@pytest.mark.needs("programs")
@pytest.mark.heavy
async def test_a_timeout_takes_the_whole_tree(shared_box: Sandbox) -> None:
    with pytest.raises(ExecTimeoutError):
        await shared_box.exec("python3", ["-c", STUBBORN, "stubborn-marker"], timeout=within(1))
    left = await shared_box.shell("grep -l stubborn-marker /proc/[0-9]*/cmdline 2>/dev/null | grep -v self | wc -l")
    # The shell that looks holds the word itself, and so does its grep.
    names = await shared_box.shell(
        "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline 2>/dev/null | grep -q '^python3.*stubborn' && echo $p; done; true"
    )
    assert names.stdout_text == "", (names.stdout_text, left.stdout_text)


@pytest.mark.hazard("X4")
@pytest.mark.needs("programs")
async def test_background_work_does_not_hold_the_call(shared_box: Sandbox) -> None:
    begin = time.monotonic()
    output = await shared_box.shell("sleep 1000 >/dev/null 2>&1 & echo started")
    assert output.stdout_text == "started\n"
    assert time.monotonic() - begin < within(2)
    begin = time.monotonic()
    output = await shared_box.shell("sleep 1000 & echo holding the pipes")
    assert output.stdout_text == "holding the pipes\n"
    assert (output.exit_code, output.duration < within(1)) == (0, True)
    # The leader's exit, and a tenth of a second in which nothing was written.
    assert time.monotonic() - begin < within(1.5)


@pytest.mark.hazard("X4")
@pytest.mark.needs("programs")
async def test_output_that_keeps_coming_is_waited_for(shared_box: Sandbox) -> None:
    # Whole and in order, at most for two seconds; then the rest is the log's.
    script = "(for n in 1 2 3 4 5 6 7 8; do sleep 0.05; echo $n; done; sleep 1000) & echo 0"
    output = await shared_box.shell(script)
    assert output.stdout_text.split() == [str(n) for n in range(len(output.stdout_text.split()))]
    assert output.stdout_text.startswith("0\n")
    if within(1) == 1:
        assert output.stdout_text.endswith("8\n")
    begin = time.monotonic()
    output = await shared_box.shell("yes & sleep 1", max_output_bytes=1000)
    assert output.exit_code == 0 and output.stdout_total > 1000
    assert time.monotonic() - begin < 3 + within(4)
    await shared_box.shell("pkill yes")


@pytest.mark.hazard("X4")
@pytest.mark.needs("programs")
async def test_what_the_leader_wrote_is_whole(shared_box: Sandbox) -> None:
    output = await shared_box.shell("sleep 1000 & seq 100000")
    assert output.stdout_bytes == b"".join(b"%d\n" % n for n in range(1, 100_001))


@pytest.mark.hazard("X1")
@pytest.mark.heavy
async def test_a_million_lines_are_all_there(shared_box: Sandbox) -> None:
    output = await shared_box.exec("seq", ["1", "1000000"])
    assert output.stdout_bytes == b"".join(b"%d\n" % n for n in range(1, 1_000_001))


@pytest.mark.hazard("X2")
async def test_a_bound_keeps_the_newest_and_true_totals(shared_box: Sandbox) -> None:
    output = await shared_box.exec("seq", ["1", "100000"], max_output_bytes=1000)
    everything = b"".join(b"%d\n" % n for n in range(1, 100_001))
    assert output.stdout_truncated is True
    assert output.stdout_total == len(everything)
    assert len(output.stdout_bytes) <= 1000
    assert everything.endswith(output.stdout_bytes)


@pytest.mark.needs("programs")
async def test_cancelling_the_call_kills_the_program(shared_box: Sandbox) -> None:
    task = asyncio.create_task(shared_box.exec("sleep", ["987"]))
    while (await shared_box.shell("pgrep -fx 'sleep 987' >/dev/null")).exit_code != 0:
        await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    deadline = time.monotonic() + within(10)
    while (await shared_box.shell("pgrep -fx 'sleep 987' >/dev/null")).exit_code == 0:
        assert time.monotonic() < deadline, "the program survived its cancelled call"
        await asyncio.sleep(0.05)


@pytest.mark.heavy
async def test_concurrent_calls_do_not_mix(shared_box: Sandbox) -> None:
    outputs = await asyncio.gather(*(shared_box.shell(f"echo {n}; echo {n} >&2; exit {n}") for n in range(30)))
    for number, output in enumerate(outputs):
        assert output.stdout_text == output.stderr_text == f"{number}\n"
        assert output.exit_code == number


@pytest.mark.hazard("R5")
@pytest.mark.needs("programs")
@pytest.mark.heavy
async def test_orphans_are_reaped_and_no_status_is_stolen(shared_box: Sandbox) -> None:
    script = "import os\nfor _ in range(2000):\n    if os.fork() == 0:\n        if os.fork() == 0: os._exit(0)\n        os._exit(0)\n    os.wait()\n"
    assert (await shared_box.exec("python3", ["-c", script], timeout=within(60))).exit_code == 0
    deadline = time.monotonic() + within(5)
    while (
        count := (
            await shared_box.shell("grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l")
        ).stdout_text.strip()
    ) != "0":
        assert time.monotonic() < deadline, f"{count} zombies"
        await asyncio.sleep(0.1)
