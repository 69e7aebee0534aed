"""Runs INSIDE a sandbox: performs escape attempts for real and prints what the kernel answered, as JSON.

`{"name": "EPERM"}`: refused with that errno; `"ok"`: it worked; `"signal 31"`: the attempt was killed. Each attempt runs
in its own forked child, so that one which is killed, or which succeeds, does not spoil the next. Standard library
only: it runs in whatever Python the sandbox has. System call numbers are those of x86-64.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import mmap
import os
import signal
import socket
import struct
import sys
import termios
import threading
from collections.abc import Callable

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
AT_FDCWD = -100
NULL = None

Attempt = Callable[[], object]
attempts: dict[str, Attempt] = {}


def call(number: int, *arguments: object) -> int:
    """A raw system call; raises OSError with its errno."""
    converted = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    ctypes.set_errno(0)
    result = int(libc.syscall(ctypes.c_long(number), *converted))
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def attempt(name: str) -> Callable[[Attempt], Attempt]:
    def add(function: Attempt) -> Attempt:
        attempts[name] = function
        return function

    return add


def simple(name: str, number: int, *arguments: object) -> None:
    attempts[name] = lambda: call(number, *arguments)


buffer = ctypes.create_string_buffer(4096)

# E1: reading and writing other processes. The agent is pid 1; `outside` is a host pid that the test passes in.
outside = int(sys.argv[2]) if len(sys.argv) > 2 else 999_999
for who, pid in (("agent", 1), ("outside", outside)):
    simple(f"E1 ptrace attach {who}", 101, 16, pid, 0, 0)
    simple(f"E1 ptrace seize {who}", 101, 0x4206, pid, 0, 0)
    vector = struct.pack("QQ", ctypes.addressof(buffer), 8)
    simple(f"E1 process_vm_readv {who}", 310, pid, vector, 1, vector, 1, 0)
    simple(f"E1 process_vm_writev {who}", 311, pid, vector, 1, vector, 1, 0)
simple("E1 kcmp", 312, os.getpid(), 1, 0, 0, 0)
attempts["E1 open /proc/1/mem"] = lambda: os.open("/proc/1/mem", os.O_RDWR)
attempts["E1 open /proc/1/environ"] = lambda: open("/proc/1/environ", "rb").read()
attempts["E1 open /proc/1/root"] = lambda: os.listdir("/proc/1/root/")
attempts["E1 open /proc/1/cwd"] = lambda: os.listdir("/proc/1/cwd/")
# Their numbers may be seen; what they are, and they themselves, may not.
for number in (3, 4):
    attempts[f"E1 read link /proc/1/fd/{number}"] = lambda n=number: os.readlink(f"/proc/1/fd/{n}")  # type: ignore[misc]
    attempts[f"E1 open /proc/1/fd/{number}"] = lambda n=number: os.open(f"/proc/1/fd/{n}", os.O_RDWR)  # type: ignore[misc]

# E2: the mount API, old and new.
simple("E2 mount tmpfs", 165, b"none", b"/tmp", b"tmpfs", 0, NULL)
simple("E2 mount proc", 165, b"proc", b"/tmp", b"proc", 0, NULL)
simple("E2 mount bind", 165, b"/", b"/tmp", NULL, 4096, NULL)
simple("E2 remount rw", 165, NULL, b"/proc/sys", NULL, 32 | 4096, NULL)
simple("E2 umount2 /proc", 166, b"/proc", 2)
simple("E2 umount2 /sys", 166, b"/sys", 2)
simple("E2 open_tree clone", 428, AT_FDCWD, b"/", 1)
simple("E2 move_mount", 429, AT_FDCWD, b"/proc", AT_FDCWD, b"/tmp", 0)
simple("E2 fsopen", 430, b"tmpfs", 0)
simple("E2 fsconfig", 431, 0, 0, NULL, NULL, 0)
simple("E2 fsmount", 432, 0, 0, 0)
simple("E2 fspick", 433, AT_FDCWD, b"/", 0)
simple("E2 mount_setattr", 442, AT_FDCWD, b"/", 0, struct.pack("QQQQ", 0, 1, 0, 0), 32)
simple("E2 open_tree_attr", 467, AT_FDCWD, b"/", 1, struct.pack("QQQQ", 0, 1, 0, 0), 32)
simple("E2 pivot_root", 155, b"/", b"/tmp")

# E3: new namespaces, by every road.
NAMESPACES = {
    "mnt": 0x00020000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
    "cgroup": 0x02000000,
    "time": 0x00000080,
}
for label, flag in NAMESPACES.items():
    simple(f"E3 unshare {label}", 272, flag)
    if label != "time":  # not a flag of clone: those bits are the exit signal
        simple(f"E3 clone {label}", 56, flag | signal.SIGCHLD, 0, 0, 0, 0)

    def enter(label: str = label) -> None:
        call(308, os.open(f"/proc/self/ns/{label}", os.O_RDONLY), 0)

    attempts[f"E3 setns {label}"] = enter
simple("E3 clone3", 435, struct.pack("Q" * 11, 0x10000000, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, 0), 88)

# E4: kernel surface that no workload needs.
for label, number, arguments in (
    ("add_key", 248, (b"user", b"x", b"y", 1, -3)),
    ("request_key", 249, (b"user", b"x", NULL, 0)),
    ("keyctl", 250, (0, -3, 0, 0, 0)),
    ("bpf", 321, (0, buffer, 48)),
    ("perf_event_open", 298, (buffer, 0, -1, -1, 0)),
    ("userfaultfd", 323, (1,)),
    ("io_uring_setup", 425, (8, buffer)),
    ("io_uring_enter", 426, (0, 1, 0, 0, NULL, 0)),
    ("io_uring_register", 427, (0, 0, NULL, 0)),
    ("kexec_load", 246, (0, 0, NULL, 0)),
    ("kexec_file_load", 320, (0, 0, 0, NULL, 0)),
    ("init_module", 175, (buffer, 16, b"")),
    ("finit_module", 313, (0, b"", 0)),
    ("delete_module", 176, (b"x", 0)),
    ("acct", 163, (b"/tmp/acct",)),
    ("swapon", 167, (b"/tmp/swap", 0)),
    ("swapoff", 168, (b"/tmp/swap",)),
    ("quotactl", 179, (0x80000000, NULL, 0, NULL)),
    ("quotactl_fd", 443, (0, 0x80000000, 0, NULL)),
    ("lookup_dcookie", 212, (0, buffer, 16)),
    ("ioperm", 173, (0x80, 1, 1)),
    ("iopl", 172, (3,)),
    ("modify_ldt", 154, (1, buffer, 16)),
    ("vmsplice", 278, (1, buffer, 0, 0)),
    ("reboot", 169, (0xFEE1DEAD, 672274793, 0, NULL)),
    ("settimeofday", 164, (struct.pack("qq", 1, 0), NULL)),
    ("clock_settime", 227, (0, struct.pack("qq", 1, 0))),
    ("adjtimex", 159, (struct.pack("I", 0x4000) + bytes(512),)),
    ("syslog", 103, (3, buffer, 64)),
    ("open_by_handle_at", 304, (AT_FDCWD, struct.pack("Ii", 8, 1) + bytes(8), 0)),
    ("fanotify_init", 300, (0, 0)),
    ("move_pages", 279, (1, 0, NULL, NULL, NULL, 0)),
    ("migrate_pages", 256, (1, 64, buffer, buffer)),
    ("pidfd_getfd", 438, (0, 0, 0)),
    ("uselib", 134, (b"/tmp/x",)),
    ("nfsservctl", 180, (0, NULL, NULL)),
    ("vhangup", 153, ()),
    ("mknod block device", 133, (b"/tmp/disk", 0o60600, 0x800)),
    ("mknod char device", 133, (b"/tmp/mem", 0o20600, 0x101)),
):
    simple(f"E4 {label}", number, *arguments)
for path in (
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/hostname",
    "/proc/sysrq-trigger",
    "/sys/kernel/uevent_helper",
):
    attempts[f"E4 write {path}"] = lambda path=path: os.open(path, os.O_WRONLY)  # type: ignore[misc]
for path in (
    "/proc/kcore",
    "/proc/keys",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/sys/firmware",
    "/dev/mem",
    "/dev/kmsg",
):

    def peek(path: str = path) -> None:
        if os.path.isdir(path):
            if not os.listdir(path):
                raise OSError(errno.ENOENT, "empty")
        elif not open(path, "rb").read(1):
            raise OSError(errno.ENOENT, "empty")

    attempts[f"E4 read {path}"] = peek


# E5: pushing input into a terminal.
def terminal_ioctl(request: int, argument: bytes) -> None:
    call(16, 0, request, argument)


for label, request in (("TIOCSTI", 0x5412), ("TIOCLINUX", 0x541C), ("TIOCSETD", 0x5423)):
    attempts[f"E5 {label}"] = lambda r=request: terminal_ioctl(r, b"\x0a\0\0\0")  # type: ignore[misc]
    attempts[f"E5 {label} high bits"] = lambda r=request: terminal_ioctl(r | 1 << 32, b"\x0a\0\0\0")  # type: ignore[misc]

# E6: processes by descriptor.
simple("E6 pidfd_open outside", 434, outside, 0)


@attempt("E6 pidfd_getfd of the agent")
def steal() -> None:
    call(438, call(434, 1, 0), 3, 0)


@attempt("E6 kill outside")
def kill_outside() -> None:
    os.kill(outside, signal.SIGKILL)


# E7: other doors to the same system calls.
simple("E7 x32 mount", 165 | 0x40000000, b"none", b"/tmp", b"tmpfs", 0, NULL)
simple("E7 x32 unshare user", 272 | 0x40000000, 0x10000000)
simple("E7 number out of range", 9999)


def run_code(code: bytes) -> int:
    """Machine code in a fresh executable page."""
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    return int(ctypes.CFUNCTYPE(ctypes.c_int)(address)())


@attempt("E7 int 0x80 unshare user")
def int80() -> None:
    # push rbx; mov eax, 310 (unshare of i386); mov ebx, CLONE_NEWUSER; int 0x80; pop rbx; ret
    result = run_code(b"\x53\xb8\x36\x01\x00\x00\xbb\x00\x00\x00\x10\xcd\x80\x5b\xc3")
    if result < 0:
        raise OSError(-result, os.strerror(-result))


@attempt("E7 a thread is filtered too")
def thread_filter() -> None:
    answers: list[int] = []

    def inside() -> None:
        try:
            call(272, 0x10000000)
            answers.append(0)
        except OSError as error:
            answers.append(error.errno or 0)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    if answers[0]:
        raise OSError(answers[0], os.strerror(answers[0]))


# E9: socket families that a sandbox has no use for. socket() only: nothing here ever connects.
for label, family, kind, protocol in (
    ("vsock", 40, socket.SOCK_STREAM, 0),
    ("packet", 17, socket.SOCK_RAW, 0x300),
    ("netlink user", 16, socket.SOCK_DGRAM, 2),
    ("netlink diag", 16, socket.SOCK_DGRAM, 4),
    ("netlink xfrm", 16, socket.SOCK_RAW, 6),
    ("netlink audit", 16, socket.SOCK_RAW, 9),
    ("netlink netfilter", 16, socket.SOCK_RAW, 12),
    ("netlink uevent", 16, socket.SOCK_RAW, 15),
    ("netlink generic", 16, socket.SOCK_RAW, 16),
    ("netlink crypto", 16, socket.SOCK_RAW, 21),
    ("netlink of 2^32", 16, socket.SOCK_RAW, 1 << 32 | 12),
    ("alg", 38, socket.SOCK_SEQPACKET, 0),
    ("xdp", 44, socket.SOCK_RAW, 0),
    ("raw icmp", 2, socket.SOCK_RAW, 1),
    ("raw icmp6", 10, socket.SOCK_RAW, 58),
    ("sctp", 2, socket.SOCK_STREAM, 132),
    ("dccp", 2, 6, 33),
    ("mptcp", 2, socket.SOCK_STREAM, 262),
    ("bluetooth", 31, socket.SOCK_RAW, 1),
    ("tipc", 30, socket.SOCK_STREAM, 0),
    ("rds", 21, socket.SOCK_SEQPACKET, 0),
    ("can", 29, socket.SOCK_RAW, 1),
    ("key", 15, socket.SOCK_RAW, 2),
    ("qipcrtr", 42, socket.SOCK_DGRAM, 0),
    ("smc", 43, socket.SOCK_STREAM, 0),
    ("x25", 9, socket.SOCK_SEQPACKET, 0),
    ("ax25", 3, socket.SOCK_DGRAM, 0),
    ("llc", 26, socket.SOCK_STREAM, 0),
    ("kcm", 41, socket.SOCK_DGRAM, 0),
):
    simple(f"E9 socket {label}", 41, family, kind, protocol)
    simple(f"E9 socketpair {label}", 53, family, kind, protocol, buffer)


# E9: what is left of netlink lists interfaces and routes. Requests come in fours: new, delete, get, set.
def change(kind: int) -> None:
    with socket.socket(16, socket.SOCK_RAW, 0) as netlink:
        netlink.settimeout(5)
        # Asks for an acknowledgement; the body is long enough for every kind, and about the loopback interface.
        netlink.send(struct.pack("=IHHII", 48, kind, 1 | 4, 1, 0) + struct.pack("=ii", 0, 1) + bytes(24))
        _, answer, _, _, _, error = struct.unpack_from("=IHHIIi", netlink.recv(4096))
        if answer == 2 and error:
            raise OSError(-error, os.strerror(-error))


for number in range(16, 116):
    if number % 4 != 2:
        attempts[f"E9 netlink change {number}"] = lambda number=number: change(number)

# E10: the binaries that host and sandbox share.
attempts["E10 open /proc/1/exe for writing"] = lambda: os.open("/proc/1/exe", os.O_WRONLY)
attempts["E10 open /proc/1/exe for reading"] = lambda: os.open("/proc/1/exe", os.O_RDONLY)


@attempt("E10 ld preload in the agent")
def preload() -> None:
    if b"LD_PRELOAD" not in open("/proc/1/environ", "rb").read():
        raise OSError(errno.ENOENT, "absent")


# E11: leaving the root.
simple("E11 chroot", 161, b"/tmp")


@attempt("E11 dot dot above the root")
def above() -> None:
    descriptor = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(64):
        descriptor = os.open("..", os.O_RDONLY | os.O_DIRECTORY, dir_fd=descriptor)
    if os.fstat(descriptor).st_ino == os.stat("/").st_ino and os.fstat(descriptor).st_dev == os.stat("/").st_dev:
        raise OSError(errno.EXDEV, "stayed inside")


@attempt("E11 an inherited descriptor")
def inherited() -> None:
    # 0 to 2 are standard, one is this attempt's result pipe. Asked number by number: a listing would open one itself.
    mine = {0, 1, 2, int(os.environ["RESULT_FD"])}
    if not [number for number in range(4096) if number not in mine and os.path.lexists(f"/proc/self/fd/{number}")]:
        raise OSError(errno.EBADF, "none")


# E12: privilege gain on exec.
@attempt("E12 setuid program")
def setuid_program() -> None:
    import shutil

    target = "/tmp/suid-id"
    shutil.copy(os.path.realpath("/usr/bin/id"), target)
    os.chown(target, 0, 0)
    os.chmod(target, 0o4755)
    os.setgid(65534)
    os.setuid(65534)
    import subprocess

    if subprocess.run([target, "-u"], capture_output=True, check=True).stdout.strip() != b"0":
        raise OSError(errno.EPERM, "inert")


@attempt("E12 clear no_new_privs")
def clear_nnp() -> None:
    if libc.prctl(38, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "refused")


@attempt("E12 raise an ambient capability")
def ambient() -> None:
    if libc.prctl(47, 2, 21, 0, 0) != 0:  # CAP_SYS_ADMIN
        raise OSError(ctypes.get_errno(), "refused")


@attempt("E12 capset everything")
def capset() -> None:
    header = struct.pack("Ii", 0x20080522, 0)
    call(126, header, struct.pack("IIIIII", *(0xFFFFFFFF,) * 6))


@attempt("E12 file capability")
def file_capability() -> None:
    import shutil
    import subprocess

    target = "/tmp/caps-cat"
    shutil.copy(os.path.realpath("/bin/cat"), target)
    os.chmod(target, 0o755)
    # CAP_SYS_ADMIN, permitted and effective.
    value = struct.pack("<IIIII", 0x02000001, 1 << 21, 0, 0, 0)
    os.setxattr(target, "security.capability", value)
    os.setgid(65534)
    os.setuid(65534)
    status = subprocess.run([target, "/proc/self/status"], capture_output=True, check=True).stdout
    effective = int(next(line for line in status.splitlines() if line.startswith(b"CapEff")).split()[1], 16)
    if not effective & 1 << 21:
        raise OSError(errno.EPERM, "inert")


# E13: the supervisor.
@attempt("E13 kill the agent")
def kill_agent() -> None:
    os.kill(1, signal.SIGKILL)
    os.kill(1, signal.SIGSTOP)
    os.kill(1, 0)  # still there: nothing happened
    raise OSError(errno.EPERM, "the kernel drops it")


@attempt("E13 parent is visible")
def parent_visible() -> None:
    if open("/proc/1/status").read().split("PPid:")[1].split()[0] == "0":
        raise OSError(errno.ESRCH, "outside of the namespace")


@attempt("E13 a socket of the product in sight")
def socket_in_sight() -> None:
    for line in open("/proc/net/unix"):
        if "agent.sock" in line or "msb" in line:
            path = line.split()[-1]
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(path)
            return
    raise OSError(errno.ENOENT, "none")


@attempt("E13 raise a hard limit")
def raise_limit() -> None:
    import resource

    _soft, hard = resource.getrlimit(resource.RLIMIT_LOCKS if hasattr(resource, "RLIMIT_LOCKS") else 10)
    resource.setrlimit(10, (hard + 1 if hard > 0 else hard, hard + 1))


# N: what the network namespace shows. TCP to the outside; nothing is listening and nothing may be reachable.
for label, address in (("internet", "192.0.2.1"), ("metadata", "169.254.169.254"), ("private", "10.0.0.1")):

    def connect(address: str = address) -> None:
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        connection.settimeout(2)
        connection.connect((address, 80))

    attempts[f"N1 connect {label}"] = connect


@attempt("N1 host loopback")
def host_loopback() -> None:
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    connection.settimeout(2)
    connection.connect(("127.0.0.1", int(sys.argv[3])))


def perform(function: Attempt) -> str:
    """Runs one attempt in a child and says what came of it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.environ["RESULT_FD"] = str(writer)
        try:
            function()
            answer = "ok"
        except OSError as error:
            answer = errno.errorcode.get(error.errno or 0, type(error).__name__)
            if isinstance(error, TimeoutError):
                answer = "timeout"
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        # A successful clone has two children here; the pipe takes both answers.
        os.write(writer, answer.encode() + b"\n")
        os._exit(0)
    os.close(writer)
    data = b""
    while block := os.read(reader, 4096):
        data += block
    os.close(reader)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return f"signal {os.WTERMSIG(status)}"
    return data.split(b"\n")[0].decode() or "nothing"


def main() -> None:
    prefix = sys.argv[1] if len(sys.argv) > 1 else ""
    if sys.stdin.isatty():  # raw, so that nothing the attempts write is echoed
        settings = termios.tcgetattr(0)
        settings[3] &= ~termios.ECHO
        termios.tcsetattr(0, termios.TCSANOW, settings)
    fcntl.fcntl(1, fcntl.F_SETFL, fcntl.fcntl(1, fcntl.F_GETFL) & ~os.O_NONBLOCK)
    answers = {name: perform(function) for name, function in attempts.items() if name.startswith(prefix)}
    print("RESULT " + json.dumps(answers))


main()
