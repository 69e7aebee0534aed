# Generated from _ssh.py by python/tools/generate_sync.py: change that, not this.
"""SSH, as it will be. Arguments are checked; every operation raises `UnsupportedError` until the SSH server lands."""
from __future__ import annotations
import math
from typing import TYPE_CHECKING, NoReturn
from .._unsupported import SSH, unsupported
if TYPE_CHECKING:
    from .._config import Path

def _timeout(value: float | None) -> None:
    if value is not None and (not (math.isfinite(value) and value >= 0)):
        raise ValueError(f'inactivity_timeout must be finite and non-negative: got {value!r}')

class SandboxSshOps:
    """SSH to a sandbox, from `Sandbox.ssh()`. `UnsupportedError` for now.

    Example: `ssh = sb.ssh()`
    """

    def open_client(self, *, user: str='root', term: str | None=None, sftp: bool=True, inactivity_timeout: float | None=None) -> SshClient:
        """A connection with keys of its own. `inactivity_timeout` is seconds, 0 none, None the configured 600.

        Example: `client = sb.ssh().open_client(user="root")`
        """
        _timeout(inactivity_timeout)
        raise unsupported('SandboxSshOps.open_client', SSH)

    def prepare_server(self, *, host_key_path: Path | None=None, authorized_keys_path: Path | None=None, user: str | None=None, sftp: bool=True, inactivity_timeout: float | None=None) -> SshServer:
        """A server for one transport. `inactivity_timeout` is seconds, 0 none, None the configured 600.

        Example: `server = sb.ssh().prepare_server()`
        """
        _timeout(inactivity_timeout)
        raise unsupported('SandboxSshOps.prepare_server', SSH)

class _Later:

    def __init__(self) -> None:
        raise unsupported(type(self).__name__, SSH)

class SshClient(_Later):
    """A connection. `UnsupportedError` for now.

    Example: `client = sb.ssh().open_client(); print(client.exec("uname").stdout_text)`
    """

    def exec(self, command: str, *, tty: bool=False) -> SshOutput:
        """Runs a command line and collects its output.

        Example: `output = ssh_client.exec("uname -s")`
        """
        raise unsupported('SshClient.exec', SSH)

    def attach(self, *, term: str | None=None, detach_keys: str | None=None) -> int:
        """Binds this terminal to a shell; its status, 128 when a signal ended it.

        Example: `status = ssh_client.attach()`
        """
        raise unsupported('SshClient.attach', SSH)

    def sftp(self) -> SftpClient:
        """Files over this connection.

        Example: `sftp = ssh_client.sftp()`
        """
        raise unsupported('SshClient.sftp', SSH)

    def close(self) -> None:
        """Ends it; a second time is fine.

        Example: `ssh_client.close()`
        """
        raise unsupported('SshClient.close', SSH)

class SshOutput(_Later):
    """A finished command. `UnsupportedError` for now.

    Example: `output = ssh_client.exec("uname -s"); print(output.status, output.stdout_text)`
    """

    @property
    def status(self) -> int:
        """Its exit status."""
        raise unsupported('SshOutput.status', SSH)

    @property
    def success(self) -> bool:
        """Whether the status is 0."""
        raise unsupported('SshOutput.success', SSH)

    @property
    def stdout_text(self) -> str:
        """Standard output as UTF-8."""
        raise unsupported('SshOutput.stdout_text', SSH)

    @property
    def stderr_text(self) -> str:
        """Standard error as UTF-8."""
        raise unsupported('SshOutput.stderr_text', SSH)

    @property
    def stdout_bytes(self) -> bytes:
        """Standard output."""
        raise unsupported('SshOutput.stdout_bytes', SSH)

    @property
    def stderr_bytes(self) -> bytes:
        """Standard error."""
        raise unsupported('SshOutput.stderr_bytes', SSH)

class SftpClient(_Later):
    """Files over SSH. `UnsupportedError` for now.

    Example: `sftp = ssh_client.sftp(); printsftp.read("/etc/hostname")`
    """

    def read(self, path: str) -> bytes:
        """The whole file.

        Example: `data = sftp.read("/etc/hostname")`
        """
        raise unsupported('SftpClient.read', SSH)

    def write(self, path: str, data: bytes) -> None:
        """Creates or truncates the file.

        Example: `sftp.write("/tmp/file", b"data")`
        """
        raise unsupported('SftpClient.write', SSH)

    def mkdir(self, path: str) -> None:
        """Makes a directory.

        Example: `sftp.mkdir("/tmp/new")`
        """
        raise unsupported('SftpClient.mkdir', SSH)

    def remove_file(self, path: str) -> None:
        """Removes a file.

        Example: `sftp.remove_file("/tmp/file")`
        """
        raise unsupported('SftpClient.remove_file', SSH)

    def remove_dir(self, path: str) -> None:
        """Removes an empty directory.

        Example: `sftp.remove_dir("/tmp/new")`
        """
        raise unsupported('SftpClient.remove_dir', SSH)

    def rename(self, old_path: str, new_path: str) -> None:
        """Renames.

        Example: `sftp.rename("/tmp/a", "/tmp/b")`
        """
        raise unsupported('SftpClient.rename', SSH)

    def real_path(self, path: str) -> str:
        """The path without links.

        Example: `printsftp.real_path(".")`
        """
        raise unsupported('SftpClient.real_path', SSH)

    def read_link(self, path: str) -> str:
        """What a link says.

        Example: `printsftp.read_link("/srv/current")`
        """
        raise unsupported('SftpClient.read_link', SSH)

    def symlink(self, target: str, link_path: str) -> None:
        """Makes a link.

        Example: `sftp.symlink("releases/7", "/srv/current")`
        """
        raise unsupported('SftpClient.symlink', SSH)

    def close(self) -> None:
        """Ends it; a second time is fine.

        Example: `sftp.close()`
        """
        raise unsupported('SftpClient.close', SSH)

class SshServer(_Later):
    """Serves one connection on standard input and output. `UnsupportedError` for now.

    Example: `server = sb.ssh().prepare_server(); server.serve_connection()`
    """

    def serve_connection(self) -> None:
        """Until the other side leaves.

        Example: `ssh_server.serve_connection()`
        """
        raise unsupported('SshServer.serve_connection', SSH)

    def close(self) -> NoReturn:
        """Ends it.

        Example: `ssh_server.close()`
        """
        raise unsupported('SshServer.close', SSH)
