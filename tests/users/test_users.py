"""An ordinary user, with and without subordinate ids, with and without delegated control groups.

newuidmap looks the user up in /etc/passwd and its ranges in /etc/subuid. Both are replaced by copies in a private mount
namespace, so the machine's own files stay as they are. The user is a number that no account of this machine has.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clients import PRELUDE

UID = 54_321
PYTHON = Path("/usr/bin/python3")

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.getuid() != 0, reason="becoming another user needs root; the other suites run as this one"),
    pytest.mark.skipif(not PYTHON.exists(), reason="no Python that every user may execute (/usr/bin/python3)"),
]

Run = Callable[..., dict[str, object]]


def find_package() -> Path:
    import microsandbox

    return Path(microsandbox.__file__).parent


@pytest.fixture(scope="session")
def package() -> Iterator[Path]:
    """The installed package where every user can read it."""
    directory = Path(tempfile.mkdtemp(prefix="pkg", dir="/tmp"))
    shutil.copytree(find_package(), directory / "microsandbox", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["chmod", "-R", "a+rX", directory], check=True)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def user_home() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="u", dir="/tmp"))
    os.chown(directory, UID, UID)
    yield directory
    shutil.rmtree(directory)


SHELL = """
set -e
work=$1; shift
for file in passwd group subuid subgid; do
    [ -e "$work/$file" ] && mount --bind "$work/$file" "/etc/$file"
done
[ -n "$HIDE_NEWUIDMAP" ] && mount --bind /dev/null /usr/bin/newuidmap
for group in $CGROUPS; do echo $$ > "$group/cgroup.procs"; done
exec setpriv --reuid $RUN_UID --regid $RUN_UID --clear-groups --no-new-privs "$@"
"""


@pytest.fixture
def run(package: Path, user_home: Path, tmp_path: Path) -> Run:
    """Runs `async def body()` as the user and gives what it returned."""

    def start(code: str, *, ranges: bool, cgroups: tuple[Path, ...] = (), privileges: bool = True) -> dict[str, object]:
        for name in ("passwd", "group"):
            text = Path(f"/etc/{name}").read_text()
            extra = f"msbtester:x:{UID}:{UID}::{user_home}:/bin/sh\n" if name == "passwd" else f"msbtester:x:{UID}:\n"
            (tmp_path / name).write_text(text + extra)
        for name in ("subuid", "subgid"):
            (tmp_path / name).write_text("msbtester:3000000:65536\n" if ranges else "")
            Path(f"/etc/{name}").exists() or Path(tmp_path / name).unlink()
        script = (
            PRELUDE
            + textwrap.dedent(code)
            + textwrap.dedent("""
            async def main():
                import json
                print("ANSWER " + json.dumps(await body()), flush=True)
            asyncio.run(main())
        """)
        )
        # newuidmap is setuid: it must be allowed to be.
        shell = SHELL.replace(" --no-new-privs", "") if privileges else SHELL
        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(user_home),
            "MSB_HOME": str(user_home / "m"),
            "PYTHONPATH": str(package),
            "PYTHONDONTWRITEBYTECODE": "1",
            "CGROUPS": " ".join(map(str, cgroups)),
            "RUN_UID": str(UID),
            "LANG": "C.UTF-8",
        }
        command = [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            shell,
            "sh",
            tmp_path,
            PYTHON,
            "-c",
            script,
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=100, env=environment, cwd="/", stdin=subprocess.DEVNULL
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
        assert lines, f"{done.returncode}\n{done.stdout}\n{done.stderr[-3000:]}"
        answer: dict[str, object] = json.loads(lines[-1].removeprefix("ANSWER "))
        return answer

    return start


MAIN_JOB = """
async def body():
    result = {}
    async with await Sandbox.create("box", image="host", backend=backend) as box:
        await box.fs.write("/root/in", b"1 2 3")
        output = await box.exec("python3", ["-c", "print(sum(map(int, open('/root/in').read().split())))"])
        result["sum"] = output.stdout_text.strip()
        result["id"] = (await box.shell("id -u; id -g")).stdout_text.split()
        chown = await box.shell("touch /tmp/f && chown 1000:1000 /tmp/f && stat -c %u:%g /tmp/f")
        result["chown"] = chown.stdout_text.strip() if chown.success else "refused"
        try:
            result["nobody"] = (await box.exec("id", ["-u"], user="nobody")).stdout_text.strip()
        except MicrosandboxError as error:
            result["nobody"] = type(error).__name__ + ": " + str(error)
        streams = "for f in /dev/stdout /dev/stderr; do echo $f > $f; done; cat /dev/stdin; umask; ulimit -Sn"
        output = await box.shell(streams, user=None if result["nobody"] != "65534" else "nobody", stdin=b"given\\n")
        result["streams"] = output.stdout_text.split() + output.stderr_text.split()
        ping = "import socket as s; a = s.socket(2, 2, 1); a.settimeout(10); a.sendto(bytes([8, 0, 0, 0, 0, 0, 0, 1]), ('127.0.0.1', 0)); print(len(a.recv(99)))"
        result["ping"] = (await box.exec("python3", ["-c", ping])).stdout_text
        report = await box.isolation_report()
        result["report"] = {m.name: [str(m.state), m.reason or ""] for m in report.mechanisms}
        status = (await box.exec("cat", ["/proc/self/status"])).stdout_text
        result["seccomp"] = status.split("Seccomp:")[1].split()[0]
        await box.stop()
    result["left"] = [h.name for h in (await Sandbox.list(backend=backend)).sandboxes]
    result["directories"] = os.listdir(home + "/sandboxes")
    return result
"""


def main_job_done(answer: dict[str, object]) -> dict[str, list[str]]:
    assert answer["sum"] == "6"
    assert answer["id"] == ["0", "0"]
    assert answer["seccomp"] == "2"
    assert answer["streams"] == ["/dev/stdout", "given", "0022", "1024", "/dev/stderr"]
    assert answer["ping"] == "8\n"
    assert answer["left"] == [] and answer["directories"] == []
    report = answer["report"]
    assert isinstance(report, dict)
    for name in (
        "user_namespace",
        "pid_namespace",
        "mount_namespace",
        "net_namespace",
        "seccomp",
        "no_new_privs",
        "capabilities",
    ):
        assert report[name][0] == "on", (name, report[name])
    return report


def test_a_user_with_subordinate_ids_has_many_ids_inside(run: Run) -> None:
    if not shutil.which("newuidmap"):
        pytest.skip("newuidmap is not installed (uidmap)")
    if not (Path("/etc/subuid").exists() and Path("/etc/subgid").exists()):
        pytest.skip("this machine has no /etc/subuid to bind a copy over")
    answer = run(MAIN_JOB, ranges=True)
    report = main_job_done(answer)
    # Many, which all sandboxes of the user share.
    assert report["id_range"][0] == "degraded" and "all sandboxes of this user share" in report["id_range"][1]
    assert answer["chown"] == "1000:1000"
    assert answer["nobody"] == "65534"


def test_a_user_without_subordinate_ids_gets_one_id_reported(run: Run) -> None:
    answer = run(MAIN_JOB, ranges=False)
    report = main_job_done(answer)
    assert report["id_range"][0] != "on" and report["id_range"][1], report["id_range"]
    assert answer["chown"] == "refused"
    assert answer["nobody"] != "65534"


def test_a_user_that_may_gain_no_privilege_falls_back_to_one_id(run: Run) -> None:
    """newuidmap is there but its setuid bit is void: the ranges cannot be had, and the report says so."""
    answer = run(MAIN_JOB, ranges=True, privileges=False)
    report = main_job_done(answer)
    assert report["id_range"][0] != "on" and report["id_range"][1]


def test_limits_without_delegation_are_reported_not_pretended(run: Run) -> None:
    answer = run(MAIN_JOB, ranges=False)
    report = main_job_done(answer)
    for name in ("memory_limit", "cpu_limit", "pids_limit"):
        assert report[name][0] in ("off", "degraded") and report[name][1], (name, report[name])


@pytest.fixture
def delegated() -> Iterator[tuple[Path, ...]]:
    """Control groups that the user may divide further, wherever the controllers of this machine live."""
    made: list[Path] = []
    name = f"msb-delegated-{os.getpid()}"
    roots = [p for p in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")) if (p / "cgroup.controllers").exists()]
    roots += [p for c in ("memory", "pids", "cpu", "freezer") if (p := Path("/sys/fs/cgroup") / c).is_dir()]
    own = {line.split(":")[1]: line.split(":")[2] for line in Path("/proc/self/cgroup").read_text().splitlines()}
    for root in roots:
        controller = "" if (root / "cgroup.controllers").exists() else root.name
        parent = root / next((p for c, p in own.items() if controller in c.split(",")), "/").lstrip("/")
        group = (parent if parent.is_dir() else root) / name
        try:
            group.mkdir()
        except OSError as error:
            pytest.skip(f"cannot make {group}: {error}")
        made.append(group)
        for path in (group, *group.iterdir()):
            os.chown(path, UID, UID)
    yield tuple(made)
    for group in made:
        for child in sorted(group.rglob("*"), key=lambda p: -len(p.parts)):
            if child.is_dir():
                child.rmdir()
        group.rmdir()


def test_limits_with_delegation_are_on(run: Run, delegated: tuple[Path, ...]) -> None:
    answer = run(MAIN_JOB, ranges=False, cgroups=delegated)
    report = main_job_done(answer)
    controllers = {group.parent.name for group in delegated} | {
        c
        for g in delegated
        if (g / "cgroup.controllers").exists()
        for c in (g / "cgroup.controllers").read_text().split()
    }
    for name, controller in (("memory_limit", "memory"), ("pids_limit", "pids")):
        if controller in controllers:
            assert report[name][0] == "on", (name, report[name])
    leftovers = [p for g in delegated for p in g.rglob("*") if p.is_dir()]
    assert not leftovers, leftovers


TRIES = """
import errno, os, socket
for call in (lambda: socket.socket(socket.AF_UNIX).connect("/ro/socket"), lambda: os.open("/ro/fifo", os.O_WRONLY | os.O_NONBLOCK)):
    try:
        call()
        print("done")
    except OSError as error:
        print(errno.errorcode[error.errno])
"""

VIEW_JOB = f"""
async def body():
    import socket
    shown = os.environ["HOME"] + "/shown"
    os.mkdir(shown)
    open(shown + "/file", "w").write("content")
    os.mkfifo(shown + "/fifo")
    reader = os.open(shown + "/fifo", os.O_RDONLY | os.O_NONBLOCK)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(shown + "/socket")
    listener.listen()
    binds = {{"/ro": Volume.bind(shown, readonly=True), "/f": Volume.bind(shown + "/file", readonly=True)}}
    async with await Sandbox.create("box", image="host", backend=backend, volumes=binds) as box:
        result = {{"tried": (await box.exec("python3", ["-c", {TRIES!r}])).stdout_text.split()}}
        result["content"] = (await box.shell("cat /ro/file /f /ro/later")).stdout_text
        open(shown + "/later", "w").write("later")
        for _ in range(200):
            result["later"] = (await box.shell("cat /ro/later")).stdout_text
            if result["later"]:
                break
            await asyncio.sleep(0.05)
        result["mounts"] = (await box.shell("cat /proc/self/mountinfo")).stdout_text
        report = await box.isolation_report()
        result["report"] = {{m.name: [str(m.state), m.reason or ""] for m in report.mechanisms}}
    # The kernel makes no overlay of procfs.
    binds = {{"/settings": Volume.bind("/proc/sys/kernel", readonly=True)}}
    async with await Sandbox.create("box", image="host", backend=backend, volumes=binds) as box:
        result["settings"] = (await box.shell("cat /settings/ostype; echo x > /settings/hostname || echo refused")).stdout_text
        report = await box.isolation_report()
        result["plain"] = {{m.name: [str(m.state), m.reason or ""] for m in report.mechanisms}}["readonly_views"]
    return result
"""


@pytest.mark.hazard("V4")
@pytest.mark.parametrize("ranges", [False, True])
def test_a_read_only_bind_of_an_ordinary_user_is_a_view(run: Run, user_home: Path, ranges: bool) -> None:
    if ranges and not shutil.which("newuidmap"):
        pytest.skip("newuidmap is not installed")
    answer = run(VIEW_JOB, ranges=ranges)
    assert answer["tried"] == ["ECONNREFUSED", "ENXIO"]
    assert (answer["content"], answer["later"]) == ("contentcontent", "later")
    report = answer["report"]
    assert isinstance(report, dict)
    assert report["readonly_views"][0] == "on", report["readonly_views"]
    assert str(user_home) not in str(answer["mounts"])
    assert answer["settings"] == "Linux\nrefused\n"
    plain = answer["plain"]
    assert isinstance(plain, list)
    assert plain[0] == "degraded" and "/settings (" in plain[1], plain


@pytest.mark.hazard("DB2")
def test_a_read_only_database_still_reads(run: Run) -> None:
    answer = run(
        """
        async def body():
            await (await Sandbox.create("box", image="host", backend=backend)).stop()
            os.chmod(home + "/db/msb.db", 0o400)
            os.chmod(home + "/db", 0o500)
            fresh = LocalBackend(home=home, isolation="container")
            result = {}
            try:
                result["list"] = [h.name for h in (await Sandbox.list(backend=fresh)).sandboxes]
            except MicrosandboxError as error:
                result["list"] = type(error).__name__
            try:
                await Sandbox.create("other", image="host", backend=fresh)
                result["create"] = "created"
            except MicrosandboxError as error:
                result["create"] = type(error).__name__
                result["text"] = str(error)
            os.chmod(home + "/db", 0o700)
            os.chmod(home + "/db/msb.db", 0o600)
            again = LocalBackend(home=home, isolation="container")
            await Sandbox.remove("box", backend=again)
            return result
        """,
        ranges=False,
    )
    assert answer["create"] == "StateReadOnlyError", answer
    assert "msb.db" in str(answer["text"])
    assert answer["list"] in (["box"], "StateReadOnlyError"), answer


# Runs a command in a user namespace of the maps "inside,outside,count/…", as its root.
NAMESPACE = """
import ctypes, os, sys
maps, command = sys.argv[1], sys.argv[2:]
made, ready = os.pipe(), os.pipe()
pid = os.fork()
if pid == 0:
    if ctypes.CDLL(None).unshare(0x10000000 | 0x00020000):  # CLONE_NEWUSER, CLONE_NEWNS
        os._exit(99)
    os.write(made[1], b"x")
    os.read(ready[0], 1)
    os.setgid(0)
    os.setuid(0)
    os.execvp(command[0], command)
os.read(made[0], 1)
for file in ("uid_map", "gid_map"):
    with open(f"/proc/{pid}/{file}", "w") as out:
        out.write(maps.replace(",", " ").replace("/", "\\n") + "\\n")
os.write(ready[1], b"x")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def in_namespace(maps: str, package: Path, home: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": "/usr/bin:/bin",
        "MSB_HOME": str(home),
        "PYTHONPATH": str(package),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    words = ["python3", "-c", NAMESPACE, maps, str(PYTHON), *command]
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=100, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("maps", "ids"), [("0,100000,65536", 65_535), ("0,100000,1000", 999), ("0,100000,1/1,200000,65536", 65_536)]
)
def test_root_of_a_rootless_container_gets_the_mapped_ids(package: Path, tmp_path: Path, maps: str, ids: int) -> None:
    home = Path(tempfile.mkdtemp(prefix="n", dir="/tmp"))
    os.chown(home, 100_000, 100_000)
    body = """
async def main():
    async with await Sandbox.create("x", image="host", isolation="container") as box:
        print((await box.exec("cat", ["/proc/self/uid_map"])).stdout_text)
asyncio.run(main())
"""
    try:
        done = in_namespace(maps, package, home, "-c", PRELUDE + body)
        assert done.stdout.split() == ["0", "1", str(ids)], done.stdout + done.stderr
        report = json.loads(
            in_namespace(maps, package, home, "-m", "microsandbox", "doctor", "--format", "json").stdout
        )
        (identities,) = [check for check in report["checks"] if check["name"] == "identities"]
        # All of these ranges lie where the users of the namespace have their ids.
        assert identities["state"] == "degraded" and "other users" in identities["detail"], identities
    finally:
        shutil.rmtree(home)


def test_a_namespace_of_one_id_is_refused_by_name(package: Path, tmp_path: Path) -> None:
    home = Path(tempfile.mkdtemp(prefix="n", dir="/tmp"))
    os.chown(home, 100_000, 100_000)
    body = """
async def main():
    await Sandbox.create("x", image="host", isolation="container")
asyncio.run(main())
"""
    try:
        done = in_namespace("0,100000,1", package, home, "-c", PRELUDE + body)
        assert "maps the ids 0 to 0 and no other id" in done.stderr, done.stderr
        assert in_namespace("0,100000,1", package, home, "-m", "microsandbox", "doctor").returncode != 0
    finally:
        shutil.rmtree(home)


MEMORY = """
import subprocess
GREEDY = "import sys; b = bytearray(200 << 20); print(len(b))"
async def body():
    box = await Sandbox.create("box", image="host", memory=64, backend=backend)
    report = {m.name: [str(m.state), m.reason] for m in (await box.isolation_report()).mechanisms}
    greedy = await box.exec("python3", ["-c", GREEDY])
    modest = await box.exec("python3", ["-c", GREEDY.replace("200", "20")])
    score = await box.exec("cat", ["/proc/self/oom_score_adj"])
    await box.destroy(force=True)
    return {"report": report, "greedy": greedy.exit_code, "modest": modest.exit_code, "score": score.stdout_text}
"""


def test_memory_is_bounded_as_well_as_rlimits_allow(run: Run) -> None:
    """M6: a sandbox of 64 MiB held 2,000 MiB, and the kernel could have picked the user's own programs."""
    answer = run(MEMORY, ranges=False)
    state, reason = answer["report"]["memory_limit"]  # type: ignore[index]
    assert state == "degraded" and "RLIMIT_DATA, 64 MiB" in reason, reason
    assert answer["greedy"] != 0 and answer["modest"] == 0
    assert int(str(answer["score"])) >= 500


def test_strict_limits_refuse_what_rlimits_stand_in_for(run: Run) -> None:
    answer = run(
        """
        async def body():
            os.makedirs(home, mode=0o700, exist_ok=True)
            with open(home + "/config.json", "w") as file:
                file.write('{"limits": "strict"}')
            os.environ["MSB_CONFIG_PATH"] = home + "/config.json"
            strict = LocalBackend(home=home, isolation="container")
            try:
                await Sandbox.create("box", image="host", backend=strict)
                return {"error": "created"}
            except MicrosandboxError as error:
                return {"error": str(error), "left": os.listdir(home + "/sandboxes")}
        """,
        ranges=False,
    )
    assert "memory_limit does not hold" in str(answer["error"]) and answer["left"] == [], answer


def test_no_set_id_program_of_the_user_can_be_left(run: Run) -> None:
    """M7: `chmod u+s` in a volume and in the root, and a directory of volumes that others can enter."""
    code = """
        async def body():
            from microsandbox import Volume
            await Volume.create("data", backend=backend)
            box = await Sandbox.create("box", image="host", volumes={"/data": Volume.named("data")}, backend=backend)
            said = await box.shell("for d in /data /root; do cp /bin/true $d/x; chmod u+s $d/x; chmod g+s $d/x; done; true")
            found = []
            for place in ("/volumes/data/x", "/sandboxes/box/upper/root/x"):
                found.append(oct(os.stat(home + place).st_mode))
            await box.destroy(force=True)
            os.chmod(home + "/volumes", 0o755)
            try:
                await (await Volume.get("data", backend=backend)).fs.list("")
                opened = "opened"
            except MicrosandboxError as error:
                opened = str(error)
            os.chmod(home + "/volumes", 0o700)
            await Volume.remove("data", backend=backend)
            return {"modes": found, "said": said.stderr_text, "opened": opened}
    """
    for ranges in (False, True):
        answer = run(code, ranges=ranges)
        assert answer["modes"] == ["0o100755", "0o100755"], answer
        assert "chmod 700" in str(answer["opened"])
