"""What ordinary programs ask of the kernel, and the answers that they can go on with."""

from __future__ import annotations

import errno

import pytest
from backends import Harness
from homes import ARCHIVE
from microsandbox import Image, Sandbox, SecurityProfile

pytestmark = [pytest.mark.needs("programs")]

INTERFACES = """
import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)
first = ctypes.c_void_p()
assert libc.getifaddrs(ctypes.byref(first)) == 0, os.strerror(ctypes.get_errno())
print(socket.if_nameindex(), {family.name for family, *_ in socket.getaddrinfo("localhost", 80)})
"""

# Families and protocols that a program may try, and does without where the machine has none: audit (useradd, PAM), packets, the
# kernel's cryptography, vsock, bluetooth, and netlink that is not about interfaces.
TRIED = """
import socket
for family, kind, protocol in ((16, 3, 9), (16, 3, 16), (17, 3, 768), (38, 5, 0), (40, 1, 0), (31, 3, 1), (1, 3, 0), (16, 2, 0)):
    try:
        socket.socket(family, kind, protocol).close()
        print(0)
    except OSError as error:
        print(error.errno)
"""

PING = """
import os, socket, struct
for family, protocol, address, kind in ((socket.AF_INET, 1, "127.0.0.1", 8), (socket.AF_INET6, 58, "::1", 128)):
    with socket.socket(family, socket.SOCK_DGRAM, protocol) as asking:
        asking.settimeout(10)
        asking.sendto(struct.pack("!BBHHH", kind, 0, 0, 0, 1) + b"are you there", (address, 0))
        answer = asking.recv(100)
        assert answer[0] == (0 if kind == 8 else 129) and answer.endswith(b"are you there"), answer
print("pinged")
"""


@pytest.mark.parametrize("user", ["root", "nobody"])
async def test_interfaces_are_listed(shared_box: Sandbox, user: str) -> None:
    output = await shared_box.exec("python3", ["-c", INTERFACES], user=user)
    assert "(1, 'lo')" in output.stdout_text and "AF_INET" in output.stdout_text, output.stderr_text


@pytest.mark.parametrize("user", ["root", "nobody"])
async def test_families_that_are_not_there_say_so(shared_harness: Harness, shared_box: Sandbox, user: str) -> None:
    output = await shared_box.exec("python3", ["-c", TRIED], user=user)
    *refused, unix, route = [int(line) for line in output.stdout_text.split()]
    assert (unix, route) == (0, 0)
    if shared_harness.kind == "microvm":
        # Its own kernel answers: it may have them, and asks for rights then.
        permitted = {0, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT, errno.EPERM}
        assert set(refused) <= permitted and refused[0] != errno.EPERM
    else:
        assert refused == [errno.EAFNOSUPPORT] * 6


@pytest.mark.parametrize("user", ["root", "nobody", "1234:4321"])
async def test_every_user_pings_its_own_machine(shared_box: Sandbox, user: str) -> None:
    output = await shared_box.exec("python3", ["-c", PING], user=user)
    assert output.stdout_text == "pinged\n", output.stderr_text


@pytest.mark.heavy
@pytest.mark.needs("images")
@pytest.mark.parametrize("security", [SecurityProfile.DEFAULT, SecurityProfile.RESTRICTED])
async def test_users_are_added_and_changed_to(harness: Harness, security: SecurityProfile) -> None:
    await Image.load(ARCHIVE, tag="debian", backend=harness.backend)
    box = await harness.create("box", image="debian", memory=512, security=security)
    for script in (
        "useradd --create-home --shell /bin/sh app && id -un app",
        "groupadd team && usermod -aG team app && gpasswd -d app team >/dev/null && gpasswd -a app team >/dev/null && id -nG app",
        "echo app:secret | chpasswd && passwd -S app | cut -d' ' -f2",
        "adduser --quiet --disabled-password --gecos '' bob && id -un bob && deluser --quiet bob",
        "su -s /bin/sh nobody -c 'id -un'",
        "su - app -c 'id -un'",
        "runuser -u nobody -- id -un",
        "setpriv --reuid app --regid app --init-groups id -un",
    ):
        output = await box.shell(script)
        assert output.success, f"{script}: {output.exit_code} {output.stderr_text}"
        assert output.stdout_text.split()[-1] in {"app", "team", "P", "bob", "nobody"}, (script, output.stdout_text)
