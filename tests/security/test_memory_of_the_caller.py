"""What an agent sends costs its caller no more than 96 MiB, whichever call of the surface asks.

`CALLS` and `ELSEWHERE` together name every public method; one that is in neither fails the first test, so no new call is forgotten.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import microsandbox
import pytest
from floods import Flood
from pace import within

Make = Callable[..., Awaitable[Any]]

LIMIT_MIB = 96

# Of the classes with calls that an agent answers: what is called and how. `box`, `handle` and `job` are there; each call has a second, because
# most would go on for ever. Rows are grouped by what they begin with.
CALLS = {
    "SandboxFsOps.read": "box.fs.read('/f')",
    "SandboxFsOps.read_text": "box.fs.read_text('/f')",
    "SandboxFsOps.write": "box.fs.write('/f', b'x' * 100)",
    "SandboxFsOps.write_text": "box.fs.write_text('/f', 'x')",
    "SandboxFsOps.read_stream": "each(box.fs.read_stream('/f'))",
    "SandboxFsOps.write_stream": "written(box.fs.write_stream('/f'))",
    "SandboxFsOps.list": "box.fs.list('/d')",
    "SandboxFsOps.list_stream": "each(box.fs.list_stream('/d'))",
    "SandboxFsOps.stat": "box.fs.stat('/f')",
    "SandboxFsOps.chmod": "box.fs.chmod('/f', 0o600)",
    "SandboxFsOps.chown": "box.fs.chown('/f', 1, 1)",
    "SandboxFsOps.utime": "box.fs.utime('/f', modified=1.0)",
    "SandboxFsOps.truncate": "box.fs.truncate('/f', 0)",
    "SandboxFsOps.symlink": "box.fs.symlink('a', '/l')",
    "SandboxFsOps.readlink": "box.fs.readlink('/l')",
    "SandboxFsOps.realpath": "box.fs.realpath('/l')",
    "SandboxFsOps.glob": "box.fs.glob('/**')",
    "SandboxFsOps.exists": "box.fs.exists('/f')",
    "SandboxFsOps.mkdir": "box.fs.mkdir('/d')",
    "SandboxFsOps.remove": "box.fs.remove('/f')",
    "SandboxFsOps.remove_dir": "box.fs.remove_dir('/d')",
    "SandboxFsOps.copy": "box.fs.copy('/a', '/b')",
    "SandboxFsOps.rename": "box.fs.rename('/a', '/b')",
    "SandboxFsOps.copy_from_host": "box.fs.copy_from_host('/etc/hostname', '/f')",
    "SandboxFsOps.copy_to_host": "box.fs.copy_to_host('/f', here + '/copied')",
    "SandboxFsOps.read_tar": "each(box.fs.read_tar('/d'))",
    "SandboxFsOps.write_tar": "written(box.fs.write_tar('/d'))",
    "SandboxFsOps.watch": "each(box.fs.watch('/d'))",
    "FsReadStream.__anext__": "each(box.fs.read_stream('/f'))",
    "FsReadStream.collect": "then(box.fs.read_stream('/f'), 'collect')",
    "FsListStream.__anext__": "each(box.fs.list_stream('/d'))",
    "FsWriteSink.write": "written(box.fs.write_stream('/f'))",
    "FsWriteSink.close": "then(box.fs.write_stream('/f'), 'close')",
    "FsWatch.__anext__": "each(box.fs.watch('/d'))",
    "FsWatch.close": "then(box.fs.watch('/d'), 'close')",
    "Sandbox.exec": "box.exec('true')",
    "Sandbox.shell": "box.shell('true')",
    "Sandbox.exec_default": "box.exec_default()",
    "Sandbox.exec_stream": "each(box.exec_stream('true'), pause=0.5)",
    "Sandbox.shell_stream": "each(box.shell_stream('true'))",
    "Sandbox.exec_default_stream": "each(box.exec_default_stream())",
    "Sandbox.exec_detached": "box.exec_detached('true')",
    "Sandbox.get_job": "box.get_job('j')",
    "Sandbox.list_jobs": "box.list_jobs(all=True)",
    "Sandbox.attach": "box.attach('true')",
    "Sandbox.attach_default": "box.attach_default()",
    "Sandbox.attach_shell": "box.attach_shell()",
    "Sandbox.metrics": "box.metrics()",
    "Sandbox.metrics_stream": "each(box.metrics_stream(0.1))",
    "Sandbox.logs": "box.logs()",
    "Sandbox.log_stream": "each(box.log_stream())",
    "Sandbox.ping": "box.ping()",
    "Sandbox.touch": "box.touch()",
    "Sandbox.modify": "box.modify(env={'A': 'b'})",
    "Sandbox.drain": "box.drain()",
    "Sandbox.request_drain": "box.request_drain()",
    "SandboxHandle.connect": "handle.connect()",
    "SandboxHandle.connect_or_start": "handle.connect_or_start()",
    "SandboxHandle.get_job": "handle.get_job('j')",
    "SandboxHandle.list_jobs": "handle.list_jobs(all=True)",
    "SandboxHandle.metrics": "handle.metrics()",
    "SandboxHandle.logs": "handle.logs()",
    "SandboxHandle.log_stream": "each(handle.log_stream())",
    "SandboxHandle.ping": "handle.ping()",
    "SandboxHandle.touch": "handle.touch()",
    "SandboxHandle.modify": "handle.modify(env={'A': 'b'})",
    "SandboxHandle.request_drain": "handle.request_drain()",
    "ExecHandle.recv": "then(box.exec_stream('true'), 'recv')",
    "ExecHandle.wait": "then(box.exec_stream('true'), 'wait')",
    "ExecHandle.collect": "then(box.exec_stream('true'), 'collect')",
    "ExecHandle.signal": "then(box.exec_stream('true'), 'signal', 9)",
    "ExecHandle.kill": "then(box.exec_stream('true'), 'kill')",
    "ExecHandle.resize": "then(box.exec_stream('true'), 'resize', 5, 5)",
    "ExecHandle.__anext__": "each(box.exec_stream('true'), pause=0.5)",
    "ExecSink.write": "fed(box.exec_stream('true', stdin=Stdin.pipe()))",
    "ExecSink.close": "fed(box.exec_stream('true', stdin=Stdin.pipe()))",
    "Job.inspect": "job.inspect()",
    "Job.wait": "job.wait()",
    "Job.signal": "job.signal(9)",
    "Job.kill": "job.kill()",
    "Job.eof": "job.eof()",
    "Job.attach": "each(job.attach(), pause=0.5)",
    "Job.logs": "job.logs()",
    "Job.log_stream": "each(job.log_stream())",
    "Job.follow_logs": "each(job.follow_logs())",
    "JobAttachment.recv": "then(job.attach(), 'recv')",
    "JobAttachment.__anext__": "each(job.attach())",
    "JobAttachment.write_stdin": "then(job.attach(), 'write_stdin', b'x')",
    "JobAttachment.resize": "then(job.attach(), 'resize', 5, 5)",
    "JobLogStream.__anext__": "each(job.log_stream())",
    "LogStream.__anext__": "each(box.log_stream())",
    "MetricsStream.__anext__": "each(box.metrics_stream(0.1))",
    "MetricsStream.show": "then(box.metrics_stream(0.1), 'show', 1)",
    "AgentClient.connect_sandbox": "raw()",
    "AgentClient.connect": "raw()",
    "AgentClient.request": "raw('request')",
    "AgentClient.stream": "raw('stream')",
    "AgentClient.send": "raw('send')",
    "AgentStream.next": "raw('next')",
    "AgentStream.__anext__": "raw('next')",
}

# What has an answer in one piece that may be as large as the limit of the call.
WHOLE = [
    "SandboxFsOps.read",
    "SandboxFsOps.read_text",
    "SandboxFsOps.list",
    "FsReadStream.collect",
    "Sandbox.exec",
    "ExecHandle.collect",
]

# Methods and whole classes that ask no agent, and what answers instead.
ELSEWHERE = {
    "here": "AgentClient.socket_path AgentClient.ready_bytes AgentClient.close AgentStream.close ExecHandle.take_stdin FsWatch.close "
    "JobAttachment.detach JobLogStream.close Sandbox.ssh Sandbox.isolation_report SandboxHandle.isolation_report "
    "Sandbox.detach SandboxHandle.config",
    "the state of the home, and its processes": "Sandbox.create Sandbox.create_with_progress Sandbox.connect_or_create Sandbox.start "
    "Sandbox.get Sandbox.list Sandbox.list_with Sandbox.remove Sandbox.status Sandbox.pause Sandbox.resume Sandbox.restart "
    "Sandbox.destroy Sandbox.wait_for_status Sandbox.wait Sandbox.stop_and_wait Sandbox.remove_persisted Sandbox.stop "
    "Sandbox.stop_with_timeout Sandbox.kill Sandbox.request_stop Sandbox.request_kill Sandbox.wait_until_stopped SandboxHandle.refresh "
    "SandboxHandle.start SandboxHandle.pause SandboxHandle.resume SandboxHandle.restart SandboxHandle.destroy "
    "SandboxHandle.wait_for_status SandboxHandle.remove SandboxHandle.stop SandboxHandle.stop_with_timeout SandboxHandle.kill "
    "SandboxHandle.request_stop SandboxHandle.request_kill SandboxHandle.wait_until_stopped SandboxHandle.storage_usage",
    "nothing yet": "Sandbox.restore Sandbox.restore_with_progress Sandbox.restore_warnings Sandbox.fork Sandbox.fork_many Sandbox.branch "
    "Sandbox.branch_many Sandbox.compact SandboxHandle.snapshot SandboxHandle.fork SandboxHandle.fork_many SandboxHandle.branch "
    "SandboxHandle.branch_many SandboxHandle.compact",
}
# Of these classes no method asks an agent.
CLASSES_ELSEWHERE = {
    "the image store": "Image ImageHandle ImageDetail PullSession PullProgressIter",
    "volumes": "Volume VolumeHandle VolumeFs",
    "nothing yet": "Snapshot SnapshotHandle SnapshotCopyBuilder SandboxSshOps SftpClient SshClient SshServer Storage",
    "backends": "BackendScope CloudBackend LocalBackend",
}
EXTRA_CALLS = {"__anext__"}


def surface() -> set[str]:
    """Every public method that does something: those of plain data are none, and neither are properties."""
    found = set()
    for name in microsandbox.__all__:
        kind = getattr(microsandbox, name)
        if not inspect.isclass(kind) or kind.__module__.startswith("microsandbox._microsandbox"):
            continue
        waits = [method for method in dir(kind) if inspect.iscoroutinefunction(inspect.unwrap(getattr(kind, method)))]
        if not waits:
            continue
        for method in dir(kind):
            is_public = not method.startswith("_") or method in EXTRA_CALLS
            if is_public and callable(getattr(kind, method)) and not isinstance(getattr(kind, method), property):
                found.add(f"{name}.{method}")
    return found


def test_every_call_of_the_surface_is_in_the_table() -> None:
    named = set(CALLS) | {call for calls in ELSEWHERE.values() for call in calls.split()}
    classes = {name for names in CLASSES_ELSEWHERE.values() for name in names.split()}
    missing = {call for call in surface() if call not in named and call.split(".")[0] not in classes}
    assert not missing, f"say in CALLS how they are called, or in ELSEWHERE what answers them: {sorted(missing)}"
    assert not (gone := named - surface()), f"no such calls: {sorted(gone)}"


# Runs the calls, each for some time, and writes down by how many MiB each made this process grow at most.
CALLER = """
import asyncio, contextlib, ctypes, gc, json, os, sys, time, warnings
warnings.simplefilter("ignore")
from microsandbox import *

home, here, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
calls = json.load(sys.stdin)
libc = ctypes.CDLL(None)

def memory(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field)) / 1024

async def each(opening, pause=0.0):
    stream = await opening
    await asyncio.sleep(pause)
    async for _ in stream:
        pass

async def then(opening, method, *arguments):
    return await getattr(await opening, method)(*arguments)

async def written(opening):
    sink = await opening
    while True:
        await sink.write(b"x" * 1000)

async def fed(opening):
    run = await opening
    sink = run.take_stdin()
    with contextlib.suppress(MicrosandboxError, OSError):
        while True:
            await sink.write(b"x" * 100_000)
    await sink.close()

async def raw(what=None):
    from microsandbox.agent import FLAG_SESSION_START
    client = await AgentClient.connect_sandbox("box", backend=local)
    request = bytes.fromhex("%s")
    try:
        if what == "request":
            await client.request(FLAG_SESSION_START, request)
        elif what is not None:
            streams = [await client.stream(FLAG_SESSION_START, request) for _ in range(8)]
            await asyncio.sleep(seconds / 2)
            if what == "send":
                await client.send(streams[0].id, 0, request)
            if what == "next":
                async for _ in streams[0]:
                    pass
    finally:
        await client.close()

async def grown(call):
    gc.collect()
    libc.malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as reset:
        reset.write("5")
    before, said = memory("VmRSS"), "returned"
    try:
        result = await asyncio.wait_for(eval(call), seconds)
    except Exception as error:
        said = f"{type(error).__name__}: {str(error)[:150]}"
        assert len(str(error)) < 20_000, "an error text without bound"
    return [memory("VmHWM") - before, said]

async def main():
    global local, box, handle, job
    local = LocalBackend(home=home, isolation="container")
    handle = await Sandbox.get("box", backend=local)
    box = await handle.connect()
    job = await box.get_job("j")
    rows = {name: await grown(call) for name, call in calls.items()}
    with open(here + "/rows", "w") as table:
        json.dump(rows, table)

asyncio.run(main())
"""


def request() -> str:
    """The body of a request whose answer is a stream."""
    from floods import body

    return body("core.exec.request", {"cmd": "true", "args": [], "no_stdin": True}).hex()


@pytest.mark.timeout(within(300))
@pytest.mark.hazard("P1")
@pytest.mark.parametrize("style", ["plenty", "padded", "whole"])
async def test_no_call_lets_an_agent_grow_its_caller(make: Make, home: Path, tmp_path: Path, style: str) -> None:
    await make(cmd=["true"])
    # Calls that differ only in how the same is asked are made once.
    once = {call: name for name, call in reversed(CALLS.items()) if style != "whole" or name in WHOLE}
    flood = Flood(style, home / "sandboxes" / "box" / "runtime" / "agent.sock")
    try:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                CALLER % request(),
                str(home),
                str(tmp_path),
                str(within(20 if style == "whole" else 0.6)),
            ],
            input=json.dumps({name: call for call, name in once.items()}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=within(240),
            env={**os.environ, "MSB_PROGRESS": "0"},
        )
    finally:
        flood.close()
    assert done.returncode == 0, done.stderr[-3000:]
    grown = json.loads((tmp_path / "rows").read_text())
    table = "\n".join(
        f"{mib:7.1f}  {name}: {said}" for name, (mib, said) in sorted(grown.items(), key=lambda row: -row[1][0])
    )
    print(table)
    assert all(mib < LIMIT_MIB for mib, _ in grown.values()), table
    if style == "whole":
        # The text of that file would be larger than a text may be.
        refused = {name for name, (_, said) in grown.items() if said != "returned"}
        assert refused == {"SandboxFsOps.read_text"}, table
