"""SSH, as it will be. Arguments are checked; every operation raises `UnsupportedError` until the SSH server lands."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NoReturn

from ._unsupported import SSH, unsupported

if TYPE_CHECKING:
    from ._config import Path


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


class _Later:
    def __init__(self) -> None:
        raise unsupported(type(self).__name__, SSH)


class SshClient(_Later):
    """A connection. `UnsupportedError` for now.

    Example: `client = await sb.ssh().open_client(); print((await client.exec("uname")).stdout_text)`
    """

    async def exec(self, command: str, *, tty: bool = False) -> SshOutput:
        """Runs a command line and collects its output.

        Example: `output = await ssh_client.exec("uname -s")`
        """
        raise unsupported("SshClient.exec", SSH)

    async def attach(self, *, term: str | None = None, detach_keys: str | None = None) -> int:
        """Binds this terminal to a shell; its status, 128 when a signal ended it.

        Example: `status = await ssh_client.attach()`
        """
        raise unsupported("SshClient.attach", SSH)

    async def sftp(self) -> SftpClient:
        """Files over this connection.

        Example: `sftp = await ssh_client.sftp()`
        """
        raise unsupported("SshClient.sftp", SSH)

    async def close(self) -> None:
        """Ends it; a second time is fine.

        Example: `await ssh_client.close()`
        """
        raise unsupported("SshClient.close", SSH)


class SshOutput(_Later):
    """A finished command. `UnsupportedError` for now.

    Example: `output = await ssh_client.exec("uname -s"); print(output.status, output.stdout_text)`
    """

    @property
    def status(self) -> int:
        """Its exit status."""
        raise unsupported("SshOutput.status", SSH)

    @property
    def success(self) -> bool:
        """Whether the status is 0."""
        raise unsupported("SshOutput.success", SSH)

    @property
    def stdout_text(self) -> str:
        """Standard output as UTF-8."""
        raise unsupported("SshOutput.stdout_text", SSH)

    @property
    def stderr_text(self) -> str:
        """Standard error as UTF-8."""
        raise unsupported("SshOutput.stderr_text", SSH)

    @property
    def stdout_bytes(self) -> bytes:
        """Standard output."""
        raise unsupported("SshOutput.stdout_bytes", SSH)

    @property
    def stderr_bytes(self) -> bytes:
        """Standard error."""
        raise unsupported("SshOutput.stderr_bytes", SSH)


class SftpClient(_Later):
    """Files over SSH. `UnsupportedError` for now.

    Example: `sftp = await ssh_client.sftp(); print(await sftp.read("/etc/hostname"))`
    """

    async def read(self, path: str) -> bytes:
        """The whole file.

        Example: `data = await sftp.read("/etc/hostname")`
        """
        raise unsupported("SftpClient.read", SSH)

    async def write(self, path: str, data: bytes) -> None:
        """Creates or truncates the file.

        Example: `await sftp.write("/tmp/file", b"data")`
        """
        raise unsupported("SftpClient.write", SSH)

    async def mkdir(self, path: str) -> None:
        """Makes a directory.

        Example: `await sftp.mkdir("/tmp/new")`
        """
        raise unsupported("SftpClient.mkdir", SSH)

    async def remove_file(self, path: str) -> None:
        """Removes a file.

        Example: `await sftp.remove_file("/tmp/file")`
        """
        raise unsupported("SftpClient.remove_file", SSH)

    async def remove_dir(self, path: str) -> None:
        """Removes an empty directory.

        Example: `await sftp.remove_dir("/tmp/new")`
        """
        raise unsupported("SftpClient.remove_dir", SSH)

    async def rename(self, old_path: str, new_path: str) -> None:
        """Renames.

        Example: `await sftp.rename("/tmp/a", "/tmp/b")`
        """
        raise unsupported("SftpClient.rename", SSH)

    async def real_path(self, path: str) -> str:
        """The path without links.

        Example: `print(await sftp.real_path("."))`
        """
        raise unsupported("SftpClient.real_path", SSH)

    async def read_link(self, path: str) -> str:
        """What a link says.

        Example: `print(await sftp.read_link("/srv/current"))`
        """
        raise unsupported("SftpClient.read_link", SSH)

    async def symlink(self, target: str, link_path: str) -> None:
        """Makes a link.

        Example: `await sftp.symlink("releases/7", "/srv/current")`
        """
        raise unsupported("SftpClient.symlink", SSH)

    async def close(self) -> None:
        """Ends it; a second time is fine.

        Example: `await sftp.close()`
        """
        raise unsupported("SftpClient.close", SSH)


class SshServer(_Later):
    """Serves one connection on standard input and output. `UnsupportedError` for now.

    Example: `server = await sb.ssh().prepare_server(); await server.serve_connection()`
    """

    async def serve_connection(self) -> None:
        """Until the other side leaves.

        Example: `await ssh_server.serve_connection()`
        """
        raise unsupported("SshServer.serve_connection", SSH)

    def close(self) -> NoReturn:
        """Ends it.

        Example: `ssh_server.close()`
        """
        raise unsupported("SshServer.close", SSH)
