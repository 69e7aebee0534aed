"""Runs INSIDE a sandbox, and outside as a witness: takes as much as it gets of each kernel table, or a little of each.

`tables.py hold` takes everything, says how much as a line of JSON, and holds it until a line arrives on standard input or that
ends. `tables.py try` takes a little of each and says what the answer was: `"ok"` or the errno's name. Standard library only.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
SIGNAL = signal.SIGRTMIN + 3
# More than the bound, where there is one: enough to show that it is met or missing.
MOST = {
    "inotify instances": 200,
    "inotify watches": 1_000,
    "queued signals": 30_000,
    "message queues": 64,
    "pipes": 1_500,
    "terminals": 200,
    "asynchronous contexts": 10,
    "locked memory": 64,
    "epoll watches": 1_000,
}
# Users inside besides root: each has counters of its own within the sandbox.
USERS = (0, 1, 2, 1000, 1001, 65_533)


def checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def instance() -> int:
    return checked(libc.inotify_init1(0))


def watch() -> int:
    if not watched:
        watched.append(instance())
    path = f"/tmp/watched.{os.getpid()}.{len(watched)}"
    os.close(os.open(path, os.O_CREAT, 0o600))
    watched.append(checked(libc.inotify_add_watch(watched[0], path.encode(), 2)))
    os.unlink(path)
    return 0


watched: list[int] = []


def queued() -> int:
    return checked(libc.sigqueue(os.getpid(), SIGNAL, None))


def queue() -> int:
    queues.append(f"/q{os.getpid()}.{len(queues)}")
    descriptor = checked(libc.mq_open(queues[-1].encode(), os.O_CREAT | os.O_RDWR, 0o600, None))
    libc.mq_unlink(queues[-1].encode())
    return descriptor


queues: list[str] = []


def pipe() -> int:
    reading, _writing = os.pipe()
    return reading


def terminal() -> int:
    return os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)


def context() -> int:
    return checked(libc.syscall(206, 1, ctypes.byref(ctypes.c_ulong())))  # io_setup


def locked() -> int:
    # 1 MiB of shared memory, locked; counted for the user, not for the process.
    number = checked(libc.shmget(0, 1 << 20, 0o1600))
    try:
        return checked(libc.shmctl(number, 11, None))
    finally:
        held.append(number)


held: list[int] = []


def epoll() -> int:
    if not polled:
        polled.append(checked(libc.epoll_create1(0)))
    reading = pipe()
    event = struct.pack("=IQ", 1, 0)
    return checked(libc.epoll_ctl(polled[0], 1, reading, event))


polled: list[int] = []

TABLES: dict[str, Callable[[], int]] = {
    "inotify instances": instance,
    "inotify watches": watch,
    "queued signals": queued,
    "message queues": queue,
    "pipes": pipe,
    "terminals": terminal,
    "asynchronous contexts": context,
    "locked memory": locked,
    "epoll watches": epoll,
}


def name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, str(error.errno))


def take(table: str, most: int) -> tuple[int, str]:
    """How many there were, and what ended it."""
    for number in range(most):
        try:
            TABLES[table]()
        except OSError as error:
            return number, name(error)
    return most, "ok"


def prepare() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [SIGNAL])
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def in_child(table: str, user: int, bound: int, release: int) -> tuple[int, str, int]:
    """Takes as another user, in a child that holds it until `release` ends."""
    answer, say = os.pipe()
    if os.fork() == 0:
        os.close(answer)
        try:
            os.setgid(user)
            os.setuid(user)
        except OSError:
            os._exit(1)
        said = take(table, bound)
        os.write(say, json.dumps(said).encode())
        os.close(say)
        os.read(release, 1)
        for number in held:
            libc.shmctl(number, 0, None)
        os._exit(0)
    os.close(say)
    text = b""
    while part := os.read(answer, 4096):
        text += part
    os.close(answer)
    return (*json.loads(text or b'[0, "no such user"]'), user)


def hold() -> None:
    release, hold_back = os.pipe()
    users = USERS if os.path.exists("/.msb") else (os.getuid(),)
    report = {table: [in_child(table, user, MOST[table], release) for user in users] for table in TABLES}
    print(json.dumps(report), flush=True)
    sys.stdin.readline()
    os.close(hold_back)


def attempt() -> None:
    report: dict[str, object] = {table: take(table, 2)[1] for table in TABLES if table != "locked memory"}
    reading, _ = os.pipe()
    report["pipe bytes"] = fcntl.fcntl(reading, 1032)  # F_GETPIPE_SZ
    report["files"] = len([os.open("/dev/null", os.O_RDONLY) for _ in range(64)])
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    prepare()
    Path("/tmp").mkdir(exist_ok=True)
    {"hold": hold, "try": attempt}[sys.argv[1]]()
