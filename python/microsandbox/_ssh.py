"""SSH, as it will be: `Sandbox.ssh()` raises `UnsupportedError` for now, so none of these can be made."""

from __future__ import annotations

from ._unsupported import SSH, unsupported


class _Later:
    def __init__(self) -> None:
        raise unsupported(type(self).__name__, SSH)


class SandboxSshOps(_Later):
    """SSH to a sandbox.

    Example: `ssh = sb.ssh()`
    """


class SshClient(_Later):
    """A connection.

    Example: `ssh = sb.ssh()`
    """


class SshOutput(_Later):
    """A finished command.

    Example: `ssh = sb.ssh()`
    """


class SftpClient(_Later):
    """Files over SSH.

    Example: `ssh = sb.ssh()`
    """


class SshServer(_Later):
    """Serves one connection.

    Example: `ssh = sb.ssh()`
    """
