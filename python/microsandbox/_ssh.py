"""SSH, as it will be. Arguments are checked; every operation raises `UnsupportedError` until the SSH server lands."""

# mypy: disable-error-code="empty-body"

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ._unsupported import SSH, refused, unsupported

if TYPE_CHECKING:
    from ._checks import Path


def _timeout(value: float | None) -> None:
    if value is not None and not (math.isfinite(value) and value >= 0):
        raise ValueError(f"inactivity_timeout must be finite and non-negative: got {value!r}")


class SandboxSshOps:
    """SSH to a sandbox, from `Sandbox.ssh()`. `UnsupportedError` for now.

    Example: `ssh = sb.ssh()`
    """

    async def open_client(
        self,
        *,
        user: str = "root",
        term: str | None = None,
        sftp: bool = True,
        inactivity_timeout: float | None = None,
    ) -> SshClient:
        """A connection with keys of its own. `inactivity_timeout` is seconds, 0 none, None the configured 600.

        Example: `client = await sb.ssh().open_client(user="root")`
        """
        _timeout(inactivity_timeout)
        raise unsupported("SandboxSshOps.open_client", SSH)

    async def prepare_server(
        self,
        *,
        host_key_path: Path | None = None,
        authorized_keys_path: Path | None = None,
        user: str | None = None,
        sftp: bool = True,
        inactivity_timeout: float | None = None,
    ) -> SshServer:
        """A server for one transport. `inactivity_timeout` is seconds, 0 none, None the configured 600.

        Example: `server = await sb.ssh().prepare_server()`
        """
        _timeout(inactivity_timeout)
        raise unsupported("SandboxSshOps.prepare_server", SSH)


@refused(SSH)
class SshClient:
    """A connection. `UnsupportedError` for now.

    Example: `client = await sb.ssh().open_client(); print((await client.exec("uname")).stdout_text)`
    """

    async def exec(self, command: str, *, tty: bool = False) -> SshOutput:
        """Runs a command line and collects its output.

        Example: `output = await ssh_client.exec("uname -s")`
        """

    async def attach(self, *, term: str | None = None, detach_keys: str | None = None) -> int:
        """Binds this terminal to a shell; its status, 128 when a signal ended it.

        Example: `status = await ssh_client.attach()`
        """

    async def sftp(self) -> SftpClient:
        """Files over this connection.

        Example: `sftp = await ssh_client.sftp()`
        """

    async def close(self) -> None:
        """Closes the connection. Idempotent.

        Example: `await ssh_client.close()`
        """


@refused(SSH)
class SshOutput:
    """A finished command. `UnsupportedError` for now.

    Example: `output = await ssh_client.exec("uname -s"); print(output.status, output.stdout_text)`
    """

    @property
    def status(self) -> int:
        """Its exit status."""

    @property
    def success(self) -> bool:
        """Whether the status is 0."""

    @property
    def stdout_text(self) -> str:
        """Standard output as UTF-8."""

    @property
    def stderr_text(self) -> str:
        """Standard error as UTF-8."""

    @property
    def stdout_bytes(self) -> bytes:
        """Standard output."""

    @property
    def stderr_bytes(self) -> bytes:
        """Standard error."""


@refused(SSH)
class SftpClient:
    """Files over SSH. `UnsupportedError` for now.

    Example: `sftp = await ssh_client.sftp(); print(await sftp.read("/etc/hostname"))`
    """

    async def read(self, path: str) -> bytes:
        """The whole file.

        Example: `data = await sftp.read("/etc/hostname")`
        """

    async def write(self, path: str, data: bytes) -> None:
        """Creates or truncates the file.

        Example: `await sftp.write("/tmp/file", b"data")`
        """

    async def mkdir(self, path: str) -> None:
        """Makes a directory.

        Example: `await sftp.mkdir("/tmp/new")`
        """

    async def remove_file(self, path: str) -> None:
        """Removes a file.

        Example: `await sftp.remove_file("/tmp/file")`
        """

    async def remove_dir(self, path: str) -> None:
        """Removes an empty directory.

        Example: `await sftp.remove_dir("/tmp/new")`
        """

    async def rename(self, old_path: str, new_path: str) -> None:
        """Renames.

        Example: `await sftp.rename("/tmp/a", "/tmp/b")`
        """

    async def real_path(self, path: str) -> str:
        """The path without links.

        Example: `print(await sftp.real_path("."))`
        """

    async def read_link(self, path: str) -> str:
        """What a link says.

        Example: `print(await sftp.read_link("/srv/current"))`
        """

    async def symlink(self, target: str, link_path: str) -> None:
        """Makes a link.

        Example: `await sftp.symlink("releases/7", "/srv/current")`
        """

    async def close(self) -> None:
        """Closes the connection. Idempotent.

        Example: `await sftp.close()`
        """


@refused(SSH)
class SshServer:
    """Serves one connection on standard input and output. `UnsupportedError` for now.

    Example: `server = await sb.ssh().prepare_server(); await server.serve_connection()`
    """

    async def serve_connection(self) -> None:
        """Until the other side leaves.

        Example: `await ssh_server.serve_connection()`
        """

    def close(self) -> None:
        """Ends it.

        Example: `ssh_server.close()`
        """
