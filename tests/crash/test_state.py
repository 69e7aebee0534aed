"""DB: the database under damage, contention and many processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from boxes import identity
from clients import Client, finish, line_of
from homes import query
from leaks import read_process
from microsandbox import LocalBackend, MicrosandboxError, Sandbox, SandboxNotFoundError, SandboxStatus
from pace import amount

Make = Callable[..., Awaitable[Any]]


@pytest.mark.fresh_home
async def test_twenty_processes_create_one_name(client: Client, local: Any) -> None:
    code = """
    async def main():
        sys.stdin.readline()
        try:
            box = await Sandbox.create("box", image="host", backend=backend, detached=True)
            print("won", flush=True)
        except SandboxAlreadyExistsError:
            print("exists", flush=True)
        except MicrosandboxError as error:
            print(type(error).__name__, error, flush=True)
    """
    processes = [client(code) for _ in range(20)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [finish(process, 100)[1].strip() for process in processes]
    assert answers.count("won") == 1, answers
    assert answers.count("exists") == 19, answers
    page = await Sandbox.list(backend=local)
    assert [(h.name, h.status) for h in page.sandboxes] == [("box", SandboxStatus.RUNNING)]
    await page.sandboxes[0].kill()
    await Sandbox.remove("box", backend=local)


async def test_two_processes_share_a_home(client: Client, local: Any, home: Path) -> None:
    code = """
    async def main():
        name = sys.argv[1]
        for turn in range(8):
            box = await Sandbox.create(f"{name}-{turn}", image="host", backend=backend)
            assert (await box.exec("echo", [name])).stdout_text == name + "\\n"
            await box.stop()
            await Sandbox.remove(f"{name}-{turn}", backend=backend)
        print("done", flush=True)
    """
    processes = [client(code, name) for name in ("left", "right")]
    for process in processes:
        status, out, err = finish(process, 100)
        assert (status, out) == (0, "done\n"), err
    assert (await Sandbox.list(backend=local)).sandboxes == []


async def test_what_one_process_makes_the_other_sees_and_uses(client: Client, local: Any) -> None:
    code = """
    async def main():
        box = await Sandbox.create("box", image="host", backend=backend, detached=True)
        await box.fs.write("/tmp/note", b"from the first")
        print("up", flush=True)
    """
    creator = client(code)
    line_of(creator, "up")
    finish(creator)
    handle = await Sandbox.get("box", backend=local)
    box = await handle.connect()
    assert await box.fs.read("/tmp/note") == b"from the first"
    await handle.stop()
    await handle.remove()


async def test_the_list_is_true_at_every_moment(client: Client, local: Any, home: Path) -> None:
    """While others create, kill and remove, every entry that says running has a live process behind it."""
    code = """
    async def main():
        end = time.monotonic() + 6
        turn = 0
        while time.monotonic() < end:
            box = await Sandbox.create(f"busy-{turn}", image="host", backend=backend)
            await box.kill()
            await Sandbox.remove(f"busy-{turn}", backend=backend)
            turn += 1
        print("turns", turn, flush=True)
    """
    workers = [client(code.replace("busy-", f"busy{n}-")) for n in range(2)]
    seen: set[SandboxStatus] = set()
    while any(worker.poll() is None for worker in workers):
        for handle in (await Sandbox.list(backend=local)).sandboxes:
            seen.add(handle.status)
            if handle.status is not SandboxStatus.RUNNING or runs(home, handle.name):
                continue
            # Nothing runs now, so it ended after the look: a second look must say so.
            with contextlib.suppress(SandboxNotFoundError):
                again = await Sandbox.get(handle.name, backend=local)
                assert again.status is not SandboxStatus.RUNNING, f"{handle.name} is said to run and has no process"
        await asyncio.sleep(0.005)
    for worker in workers:
        status, out, err = finish(worker)
        assert status == 0, err
        assert int(out.split()[1]) > 3
    assert SandboxStatus.RUNNING in seen, f"never seen running, so nothing was proved: {seen}"
    assert (await Sandbox.list(backend=local)).sandboxes == []


def runs(home: Path, name: str) -> bool:
    """Whether the runtime that the sandbox's directory names is alive; names are used once, so it is the same sandbox."""
    try:
        runtime = identity(home, name)["runtime"]
    except FileNotFoundError:
        return False
    process = read_process(runtime["pid"])
    return process is not None and process.start == runtime["start_time"] and process.state != "Z"


async def test_no_sqlite_handle_and_no_state_in_the_runtime(make: Make, home: Path) -> None:
    from boxes import init_pid, runtime_pid

    await make()
    for pid in (runtime_pid(home), init_pid(home)):
        targets = [os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir() if os.path.lexists(fd)]
        assert not [t for t in targets if "msb.db" in t], targets


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "empty":
        data.clear()
    elif how == "truncated":
        del data[len(data) // 2 :]
    elif how == "header":
        data[:16] = b"no sqlite at all"
    elif how == "first page":
        data[100:140] = os.urandom(40)
    elif how == "any page":
        rng = random.Random(1)
        for _ in range(1000):
            data[rng.randrange(100, len(data))] = rng.randrange(256)
    path.write_bytes(data)


@pytest.mark.hazard("DB1")
@pytest.mark.leaves_records("the database that knows them is damaged")
@pytest.mark.parametrize("how", ["empty", "truncated", "header", "first page", "any page"])
async def test_a_damaged_database_is_a_named_error(home: Path, how: str) -> None:
    first = LocalBackend(home=home, isolation="container")
    box = await Sandbox.create("box", image="host", backend=first)
    await box.stop()
    del first, box
    database = home / "db" / "msb.db"
    query(home, "pragma wal_checkpoint(truncate)")
    for extra in ("-wal", "-shm"):
        Path(f"{database}{extra}").unlink(missing_ok=True)
    damage(database, how)
    fresh = LocalBackend(home=home, isolation="container")
    try:
        page = await asyncio.wait_for(Sandbox.list(backend=fresh), 20)
    except MicrosandboxError as error:
        assert "msb.db" in str(error), error
        assert type(error).__name__ in ("StateCorruptError", "StateLostError", "StateReadOnlyError"), repr(error)
    else:
        # An empty file is a new database; a flipped page may hold nothing that is read.
        assert [h.name for h in page.sandboxes] in ([], ["box"])


@pytest.mark.hazard("DB2")
async def test_a_read_only_database_still_reads(home: Path) -> None:
    if os.getuid() == 0:
        pytest.skip("root writes to read-only files; tests/users has this case as an ordinary user")


@pytest.mark.hazard("DB6")
async def test_a_database_replaced_under_us_is_noticed_or_works(home: Path, local: Any) -> None:
    assert (await Sandbox.list(backend=local)).sandboxes == []
    database = home / "db" / "msb.db"
    for extra in ("", "-wal", "-shm"):
        Path(f"{database}{extra}").unlink(missing_ok=True)
    try:
        box = await asyncio.wait_for(Sandbox.create("box", image="host", backend=local), 30)
    except MicrosandboxError as error:
        assert type(error).__name__ == "StateLostError", repr(error)
        assert "msb.db" in str(error)
        assert list((home / "sandboxes").glob("*")) == []
    else:
        fresh = LocalBackend(home=home, isolation="container")
        assert [h.name for h in (await Sandbox.list(backend=fresh)).sandboxes] == ["box"]
        await box.kill()
        await Sandbox.remove("box", backend=fresh)


@pytest.mark.hazard("DB3")
@pytest.mark.fresh_home
async def test_two_processes_migrate_together(client: Client, home: Path) -> None:
    code = """
    async def main():
        sys.stdin.readline()
        print(len((await Sandbox.list(backend=backend)).sandboxes), flush=True)
    """
    processes = [client(code) for _ in range(6)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        status, out, err = finish(process)
        assert (status, out) == (0, "0\n"), err
    health, rows = query(home, "pragma integrity_check", "select version from seaql_migrations")
    assert health == [["ok"]]
    versions = [str(row) for row in rows]
    assert len(versions) == len(set(versions)) >= 1


@pytest.mark.hazard("DB3")
async def test_a_kill_between_migrations_is_repaired(client: Client, local: Any, home: Path) -> None:
    """Forgets the last recorded migrations while their tables exist: what a kill in the middle leaves."""
    await Sandbox.list(backend=local)
    everything = "select version from seaql_migrations order by version"
    versions = [row[0] for row in query(home, everything)[0]]  # type: ignore[index]
    for keep in range(len(versions)):
        copy = Path(str(home) + "-copy")
        shutil.copytree(home, copy)
        try:
            query(copy, *(f"delete from seaql_migrations where version = '{version}'" for version in versions[keep:]))
            backend = LocalBackend(home=copy, isolation="container")
            assert (await Sandbox.list(backend=backend)).sandboxes == []
            again = [row[0] for row in query(copy, everything)[0]]  # type: ignore[index]
            assert again == versions, f"after {keep} recorded migrations"
        finally:
            shutil.rmtree(copy)


@pytest.mark.hazard("DB5")
@pytest.mark.soak
@pytest.mark.timeout(amount(120, 3600))
async def test_acknowledged_operations_survive_kills(client: Client, local: Any, home: Path) -> None:
    """A writer says each operation once it is acknowledged; it is killed at a random moment. What it said must hold."""
    code = """
    async def main():
        turn = int(sys.argv[1])
        while True:
            box = await Sandbox.create(f"box-{turn}", image="host", backend=backend, detached=True)
            print("created", turn, flush=True)
            await box.kill()
            print("killed", turn, flush=True)
            if turn % 2:
                await Sandbox.remove(f"box-{turn}", backend=backend)
                print("removed", turn, flush=True)
            turn += 1
    """
    rng = random.Random(5)
    base = 0
    for _ in range(amount(8, 1000)):
        writer = client(code, str(base))
        assert writer.stdout is not None
        line = writer.stdout.readline()
        await asyncio.sleep(rng.uniform(0, 0.4))
        writer.kill()
        _, rest, err = finish(writer)
        journal = [tuple(entry.split()) for entry in (line + rest).splitlines() if entry.count(" ") == 1]
        assert journal, err
        backend = LocalBackend(home=home, isolation="container")
        rows: dict[str, Any] = {}
        cursor = None
        while True:
            page = await Sandbox.list_with(limit=100, cursor=cursor, backend=backend)
            rows |= {h.name: h for h in page.sandboxes}
            cursor = page.next_cursor
            if cursor is None:
                break
        said: dict[str, str] = {}
        for what, turn in journal:
            said[f"box-{turn}"] = what
        for name, what in said.items():
            if what == "removed":
                assert name not in rows, f"{name} came back after its removal"
            elif what == "killed" and int(name.split("-")[1]) % 2 == 0:
                assert rows[name].status in (SandboxStatus.STOPPED, SandboxStatus.CRASHED)
            elif what == "created":
                assert name in rows, f"{name} was acknowledged and is gone"
        for handle in rows.values():
            await handle.kill()
            await (await handle.refresh()).remove()
        base += 100
    assert query(home, "pragma integrity_check") == [[["ok"]]]


@pytest.mark.hazard("L12")
async def test_order_does_not_depend_on_the_clock(local: Any, make: Make, home: Path) -> None:
    """Rows whose creation times go backwards still come newest first."""
    for name in ("a", "b", "c"):
        await make(name)
    query(home, "update sandbox set created_at = datetime('now', '-' || (id * 3600) || ' seconds')")
    assert [h.name for h in (await Sandbox.list(backend=local)).sandboxes] == ["c", "b", "a"]
