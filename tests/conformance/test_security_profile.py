"""`security=SecurityProfile.RESTRICTED`: no privilege gain, no mount administration, nosuid and nodev mounts."""

from __future__ import annotations

import pytest
from backends import Harness
from microsandbox import InvalidConfigError, Sandbox, SecurityProfile

pytestmark = pytest.mark.needs("isolation")

# Bits of capability sets (linux/capability.h).
CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, NET_BIND_SERVICE = 0, 1, 3, 4, 5, 6, 7, 10
KEPT = {CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, NET_BIND_SERVICE}


@pytest.fixture
async def restricted(harness: Harness) -> Sandbox:
    box: Sandbox = await harness.create(security=SecurityProfile.RESTRICTED)
    return box


async def test_root_inside_administers_no_mounts(harness: Harness, restricted: Sandbox) -> None:
    for command in (
        "mount -t tmpfs none /mnt",
        "mount --bind /etc /mnt",
        "mount -o remount,rw,suid,dev /",
        "umount /proc",
        # A namespace of its own would make it the administrator of that.
        "unshare --user --map-root-user --mount mount -t tmpfs none /mnt",
        "unshare --mount true",
        "echo 1000 > /proc/sys/user/max_user_namespaces",
        # The first process has more rights than any program.
        "cat /proc/1/mem > /tmp/memory",
    ):
        refused = await restricted.shell(command)
        assert not refused.success, command
    # Over a restart as well: it is part of what is stored.
    await restricted.stop()
    again = await Sandbox.start("box", backend=harness.backend)
    assert not (await again.shell("mount -t tmpfs none /mnt")).success


async def test_no_program_gains_privileges(restricted: Sandbox) -> None:
    status = dict(
        line.split(":\t", 1)
        for line in (await restricted.exec("cat", ["/proc/self/status"])).stdout_text.splitlines()
        if ":\t" in line
    )
    assert status["NoNewPrivs"] == "1"
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert {bit for bit in range(64) if int(status[kind], 16) >> bit & 1} <= KEPT, kind
    made = await restricted.shell("cp /usr/bin/id /tmp/id && chown 0:0 /tmp/id && chmod 4755 /tmp/id")
    assert made.success, made.stderr_text
    assert (await restricted.exec("/tmp/id", ["-u"], user="65534")).stdout_text == "65534\n"


async def test_every_mount_is_nosuid_and_nodev(restricted: Sandbox) -> None:
    lines = (await restricted.exec("cat", ["/proc/self/mountinfo"])).stdout_text.splitlines()
    # Place: number of the file system, its type, options (proc_pid_mountinfo(5)).
    mounts = {
        head.split()[4]: (head.split()[2], tail.split()[0], head.split()[5].split(","))
        for head, tail in (line.split(" - ") for line in lines)
    }
    assert {"/", "/dev"} <= mounts.keys()
    for place, (number, kind, options) in mounts.items():
        assert "nosuid" in options, place
        # The devices of the sandbox itself, each a mount of its own or all in /dev, are there to be used.
        assert "nodev" in options or kind in ("devtmpfs", "devpts") or number == mounts["/dev"][0], (place, kind)


async def test_an_init_needs_what_it_refuses(harness: Harness) -> None:
    with pytest.raises(InvalidConfigError, match="security=RESTRICTED"):
        await harness.create(security=SecurityProfile.RESTRICTED, init="/sbin/init")
    assert not (await Sandbox.list(backend=harness.backend)).sandboxes
