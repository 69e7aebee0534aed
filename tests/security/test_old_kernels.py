"""E14: kernels that lack something. A filter over the client, and with it over everything that it starts, answers as they would."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from clients import Client, finish

# seccomp(2), classic BPF: `calls` are answered with an error number; a mask makes only calls with such a bit in their first argument count.
SHIM = """
import ctypes, errno, json, struct
def shim(*calls):
    def step(code, jt, jf, k): return struct.pack("<HBBI", code, jt, jf, k)
    body = b""
    for number, mask, error in calls:
        body += step(0x20, 0, 0, 0)  # the call's number
        body += step(0x15, 0, 3, number)
        body += step(0x20, 0, 0, 16)  # its first argument, the low half
        body += step(0x45, 0, 1, mask) if mask else step(0x05, 0, 0, 0)
        body += step(0x06, 0, 0, 0x00050000 | error)
    body += step(0x06, 0, 0, 0x7FFF0000)
    code = ctypes.create_string_buffer(body, len(body))
    program = struct.pack("<HxxxxxxQ", len(body) // 8, ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    # Every thread of this process at once.
    assert libc.syscall(317, 1, 1, program) == 0, ctypes.get_errno()
"""
CLONE3, CLONE, UNSHARE, NEWUSER = 435, 56, 272, 0x10000000
LANDLOCK = (444, 445, 446)


def filtered(calls: str, code: str) -> str:
    return SHIM + f"\nshim({calls})\n" + code


@pytest.mark.hazard("E14")
async def test_without_landlock_the_report_says_so(client: Client) -> None:
    code = """
async def main():
    async with await Sandbox.create("box", image="host", backend=backend) as box:
        report = await box.isolation_report()
        said = {m.name: m.state.value for m in report.mechanisms}
        print(json.dumps([said, (await box.exec("echo", ["works"])).stdout_text]))
"""
    status, out, err = finish(client(filtered(", ".join(f"({n}, 0, errno.ENOSYS)" for n in LANDLOCK), code)))
    assert status == 0, err
    said, output = json.loads(out)
    assert output == "works\n"
    assert said["landlock"] == "off", said
    assert said["seccomp"] == said["user_namespace"] == "on", said


@pytest.mark.hazard("E14")
async def test_without_user_namespaces_nothing_starts(client: Client, home: Path) -> None:
    code = """
async def main():
    try:
        await Sandbox.create("box", image="host", backend=backend)
        print("started")
    except MicrosandboxError as error:
        print(json.dumps([type(error).__name__, str(error), len((await Sandbox.list(backend=backend)).sandboxes)]))
"""
    calls = f"({CLONE3}, 0, errno.ENOSYS), ({CLONE}, {NEWUSER}, errno.EPERM), ({UNSHARE}, {NEWUSER}, errno.EPERM)"
    status, out, err = finish(client(filtered(calls, code)))
    assert status == 0, err
    name, message, left = json.loads(out)
    assert name in ("IsolationUnavailableError", "BootStartError"), out
    assert "user namespace" in message, message
    assert left == 0
    assert not list((home / "sandboxes").glob("*/runtime"))
