"""DB7: what a loss of power may leave of the write-ahead log, replayed.

The database promises (rust/store/src/lib.rs): after a loss of power the last writes may be missing, never a part of one,
and the file is consistent. The log is written in order, so what may be left is a beginning of it, torn anywhere.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from clients import KILLED, Client, finish
from microsandbox import LocalBackend, Sandbox

CREATES = 8
WRITER = f"""
async def main():
    await Sandbox.list(backend=backend)
    for turn in range({CREATES}):
        await (await Sandbox.create(f"box-{{turn}}", image="host", backend=backend)).kill()
        print("created", turn, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""

# In a process of its own: a second SQLite library in this one would drop the locks that the product holds. For every
# cut of the log: the names of the sandboxes, in order, or what is wrong.
REPLAY = """
import json, pathlib, shutil, sqlite3, sys
source, work = map(pathlib.Path, sys.argv[1:])
log = (source / "msb.db-wal").read_bytes()
page = int.from_bytes(log[8:12], "big")
frame = 24 + page
ends = range(32, len(log) + 1, frame)
cuts = sorted({0, *ends, *(end - part for end in ends for part in (1, page // 2) if end > 32)})
answers = []
for cut in cuts:
    work.mkdir()
    shutil.copy(source / "msb.db", work)
    (work / "msb.db-wal").write_bytes(log[:cut])
    connection = sqlite3.connect(work / "msb.db")
    sound = connection.execute("pragma integrity_check").fetchall() == [("ok",)]
    broken = connection.execute("pragma foreign_key_check").fetchall()
    tables = [row[0] for row in connection.execute("select name from sqlite_master where type = 'table'")]
    rows = connection.execute("select name from sandbox order by id").fetchall() if "sandbox" in tables else []
    connection.close()
    shutil.rmtree(work)
    answers.append([cut, sound and not broken, [row[0] for row in rows]])
print(json.dumps(answers))
"""


def remains(directory: Path, work: Path) -> list[tuple[int, bool, list[str]]]:
    command = [sys.executable, "-c", REPLAY, str(directory), str(work)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=100)
    return [tuple(answer) for answer in json.loads(done.stdout)]


@pytest.mark.hazard("DB7")
@pytest.mark.leaves_records
async def test_every_beginning_of_the_log_is_a_consistent_past(client: Client, home: Path, tmp_path: Path) -> None:
    status, out, err = finish(client(WRITER))
    assert status == KILLED, err
    assert out.count("created") == CREATES
    # As the writer left it: not opened since, so the log is whole.
    left = tmp_path / "left"
    shutil.copytree(home / "db", left)
    all_names = [f"box-{turn}" for turn in range(CREATES)]
    answers = remains(left, tmp_path / "replay")
    assert len(answers) > CREATES * 3, "the log is too short to prove anything"
    known = 0
    for cut, sound, names in answers:
        assert sound, f"inconsistent after {cut} bytes of the log"
        assert names == all_names[: len(names)], f"a hole after {cut} bytes of the log: {names}"
        assert len(names) >= known, f"more of the log, fewer sandboxes: {names} after {cut} bytes"
        known = len(names)
    assert known == CREATES, "an acknowledged creation is not in the whole log"
    # And the product itself: what is missing is missing, the rest is listed and can be removed.
    for cut in (answers[0][0], answers[len(answers) // 2][0]):
        shutil.rmtree(home / "db")
        (home / "db").mkdir(mode=0o700)
        shutil.copy(left / "msb.db", home / "db")
        (home / "db" / "msb.db-wal").write_bytes((left / "msb.db-wal").read_bytes()[:cut])
        expected = next(names for at, _, names in answers if at == cut)
        backend = LocalBackend(home=home, isolation="container")
        assert [h.name for h in (await Sandbox.list(backend=backend)).sandboxes] == expected[::-1]
        for name in expected:
            await (await Sandbox.get(name, backend=backend)).remove()
