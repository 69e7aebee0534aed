"""Text at the edges: characters that a bound cuts, and words that are not UTF-8."""

from __future__ import annotations

import os

import pytest
from backends import Harness
from microsandbox import ExecFailedError, ExecTimeoutError, Sandbox
from pace import within

# "caf\xe9" as Latin-1 writes it: no UTF-8.
ODD = os.fsdecode(b"caf\xe9")
# Characters that the wire uses for such bytes are words, too.
PLANE_16 = "\U0010fee9\U0010fe80"


@pytest.mark.needs("programs")
@pytest.mark.parametrize("bound", range(1, 12))
async def test_characters_cut_by_a_bound_are_left_out(shared_box: Sandbox, bound: int) -> None:
    text = "aé漢🦀" * 5
    done = await shared_box.exec("printf", ["%s", text], max_output_bytes=bound)
    assert text.endswith(done.stdout_text) and done.stdout_truncated
    assert bound - len(done.stdout_text.encode()) < 4
    # The bytes are all there.
    assert done.stdout_bytes == text.encode()[-bound:]


@pytest.mark.needs("programs")
async def test_characters_cut_by_a_timeout_are_left_out(shared_box: Sandbox) -> None:
    script = r"printf 'ab\303\251\342\202'; printf '\360\237\246' >&2; sleep 60"
    with pytest.raises(ExecTimeoutError) as caught:
        await shared_box.shell(script, timeout=within(0.5))
    output = caught.value.output
    assert output is not None
    assert (output.stdout_text, output.stderr_text) == ("abé", "")
    assert output.stdout_bytes == b"ab\xc3\xa9\xe2\x82"


@pytest.mark.needs("programs")
async def test_what_the_program_itself_cut_is_an_error(shared_box: Sandbox) -> None:
    done = await shared_box.shell(r"printf 'ab\342\202'")
    with pytest.raises(UnicodeDecodeError):
        _ = done.stdout_text
    # Not of a character that was cut: the program's own.
    done = await shared_box.exec("printf", [r"\377\377\377\377\377"], max_output_bytes=4)
    with pytest.raises(UnicodeDecodeError):
        _ = done.stdout_text


@pytest.mark.needs("programs")
@pytest.mark.parametrize("word", [ODD, PLANE_16, "plain", "漢"], ids=["latin-1", "plane 16", "ascii", "utf-8"])
async def test_words_are_passed_on_as_bytes(shared_box: Sandbox, word: str) -> None:
    data = os.fsencode(word)
    done = await shared_box.exec("printf", ["%s", word])
    assert done.stdout_bytes == data
    done = await shared_box.shell(f"printf %s {word}")
    assert done.stdout_bytes == data
    done = await shared_box.exec("sh", ["-c", 'printf %s "$WORD"'], env={"WORD": word})
    assert done.stdout_bytes == data
    await shared_box.fs.mkdir(f"/tmp/{word}")
    done = await shared_box.exec("pwd", cwd=f"/tmp/{word}", env={"PWD": ""})
    assert done.stdout_bytes == b"/tmp/" + data + b"\n"
    # A program of that name, by its path and on the PATH.
    await shared_box.fs.write(f"/tmp/{word}/{word}", b"#!/bin/sh\nprintf ran\n")
    await shared_box.exec("chmod", ["+x", f"/tmp/{word}/{word}"])
    assert (await shared_box.exec(f"/tmp/{word}/{word}")).stdout_text == "ran"
    path = f"/tmp/{word}:/usr/bin:/bin"
    assert (await shared_box.exec(word, env={"PATH": path})).stdout_text == "ran"


@pytest.mark.needs("programs")
async def test_an_odd_program_that_is_absent_is_named(shared_box: Sandbox) -> None:
    with pytest.raises(ExecFailedError) as caught:
        await shared_box.exec(f"/no/{ODD}")
    assert caught.value.kind == "not_found" and "/no/caf" in str(caught.value)


@pytest.mark.needs("programs")
async def test_options_of_a_sandbox_are_passed_on_as_bytes(harness: Harness) -> None:
    box = await harness.create("odd", env={"WORD": ODD}, workdir="/tmp")
    done = await box.exec("sh", ["-c", 'printf %s "$WORD"'])
    assert done.stdout_bytes == os.fsencode(ODD)


@pytest.mark.needs("programs")
async def test_users_and_homes_that_are_not_utf_8(harness: Harness, box: Sandbox) -> None:
    name = os.fsencode(ODD)
    line = b"%s:x:1234:1234::/home/%s:/bin/sh\n" % (name, name)
    passwd = await box.fs.read("/etc/passwd")
    await box.fs.write("/etc/passwd", passwd.rstrip(b"\n") + b"\n" + line)
    done = await box.exec("sh", ["-c", 'printf %s "$HOME"'], user=ODD)
    assert done.stdout_bytes == b"/home/" + name


@pytest.mark.needs("jobs")
async def test_a_job_shows_the_words_it_was_given(shared_box: Sandbox) -> None:
    job = await shared_box.exec_detached("sh", ["-c", "sleep 30", ODD])
    try:
        [found] = [info for info in (await shared_box.list_jobs()).items if info.id == job.id]
        assert list(found.command)[-1] == ODD
    finally:
        await job.kill()


@pytest.mark.needs("init")
async def test_an_init_gets_words_as_bytes(harness: Harness) -> None:
    script = 'printf %s "$1$WORD" > /tmp/words; exec sleep 600'
    init = {"cmd": "/bin/sh", "args": ["-c", script, "init", ODD], "env": {"WORD": ODD}}
    box = await harness.create("initial", init=init)
    done = await box.shell("while [ ! -s /tmp/words ]; do sleep 0.02; done; cat /tmp/words", timeout=within(20))
    assert done.stdout_bytes == os.fsencode(ODD) * 2
