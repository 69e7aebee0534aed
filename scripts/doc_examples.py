"""The examples in the docstrings of the public names as one Python module, for a type checker to read.

    python scripts/doc_examples.py > target/doc_examples.py

Each becomes the body of a coroutine whose parameters are the names that examples use (`sb`, `handle`, `job`, …). A
public name without an example is an error.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator

import microsandbox

HEAD = """\
from __future__ import annotations

import asyncio
import io
import os
import signal
import time
import warnings
from pathlib import Path

from microsandbox import *
from microsandbox import sync
from microsandbox import FLAG_SESSION_START, MiB
from microsandbox.agent import AgentClient, AgentStream, RawFrame
from microsandbox.jobs import Job, JobAttachment, JobLogStream
from microsandbox.types import DnsConfig
"""
PARAMETERS = {
    "sb": "Sandbox",
    "handle": "SandboxHandle",
    "backend": "LocalBackend",
    "process": "ExecHandle",
    "sink": "ExecSink",
    "event": "ExecEvent",
    "reader": "FsReadStream",
    "writer": "FsWriteSink",
    "watch": "FsWatch",
    "job": "Job",
    "attachment": "JobAttachment",
    "job_logs": "JobLogStream",
    "image": "ImageHandle",
    "volume": "VolumeHandle",
    "plan": "SandboxModificationPlan",
    "session": "PullSession",
    "client": "AgentClient",
    "frames": "AgentStream",
    "proxy": "OutboundProxy",
    "body": "bytes",
    "chunk": "bytes",
    "ssh_client": "SshClient",
    "ssh_server": "SshServer",
    "sftp": "SftpClient",
    "snapshot": "Snapshot",
    "record": "SnapshotHandle",
    "id": "str",
    "key": "str",
}
INLINE = re.compile(r"Example: `(.+)`", re.DOTALL)


def named() -> Iterator[tuple[str, object]]:
    """Every public class and function once, and the public functions of the classes."""
    seen: set[int] = set()
    for name in microsandbox.__all__:
        thing = getattr(microsandbox, name)
        # A type alias, a constant.
        if not (inspect.isclass(thing) or inspect.isfunction(thing) or inspect.isbuiltin(thing)) or id(thing) in seen:
            continue
        seen.add(id(thing))
        yield name, thing
        if inspect.isclass(thing):
            for member, function in inspect.getmembers(thing, inspect.isroutine):
                ours = str(getattr(function, "__module__", "")).startswith("microsandbox")
                if not member.startswith("_") and ours:
                    yield f"{name}.{member}", function


def example(text: str) -> str | None:
    """The program in a docstring."""
    if inline := INLINE.search(text):
        return " ".join(inline[1].split())
    _, mark, rest = text.partition("Example:")
    if not mark:
        return None
    lines = rest.removeprefix(":").strip("\n").split("\n")
    body = []
    for line in lines:
        # Text at the margin ends the block.
        if body and line and not line.startswith(" "):
            break
        body.append(line)
    block = textwrap.dedent("\n".join(body)).strip("\n")
    if ">>> " in block:
        return "\n".join(line[4:] for line in block.split("\n") if line.startswith((">>> ", "... ")))
    return block


def parameters(code: str) -> str:
    """The parameters of the program: names that it reads and does not define, or redefines from themselves."""
    tree = ast.parse(code)
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    read = {node.id for node in names if isinstance(node.ctx, ast.Load)}
    made = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    renewed = {
        node.targets[0].id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        if node.targets[0].id in {n.id for n in ast.walk(node.value) if isinstance(n, ast.Name)}
    }
    return ", ".join(f"{name}: {kind}" for name, kind in PARAMETERS.items() if name in read - (made - renewed))


def main() -> None:
    print(HEAD)
    missing = []
    for number, (name, thing) in enumerate(named()):
        code = example(inspect.getdoc(thing) or "")
        if code is None:
            missing.append(name)
            continue
        if code.startswith("except "):
            code = f"try:\n    await Sandbox.create('box', image='host')\n{code}"
        print(f"\n# {name}\nasync def example_{number}({parameters(code)}) -> None:\n{textwrap.indent(code, '    ')}")
    if missing:
        sys.exit(f"public names without an example: {' '.join(missing)}")


if __name__ == "__main__":
    main()
