"""Changes of a root file system before the first program runs, as data."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Union

from ._checks import Path, checked
from ._enums import PatchKind

_NEEDS: dict[str, dict[str, type]] = {
    "text": {"path": str, "content": str},
    "file": {"path": str, "content": bytes},
    "mkdir": {"path": str},
    "append": {"path": str, "content": str},
    "copy_file": {"src": str, "dst": str},
    "copy_dir": {"src": str, "dst": str},
    "symlink": {"target": str, "link": str},
    "remove": {"path": str},
}


@dataclass(frozen=True)
class PatchConfig:
    """One change; made by the factories of `Patch`.

    Example: `patches: list[PatchConfig] = [Patch.mkdir("/opt/app")]`
    """

    kind: PatchKind
    path: Union[str, None] = None
    content: Union[str, bytes, None] = field(default=None, repr=False)
    src: Union[str, None] = None
    dst: Union[str, None] = None
    target: Union[str, None] = None
    link: Union[str, None] = None
    mode: Union[int, None] = None
    replace: bool = False

    def _to_dict(self) -> dict[str, Any]:
        kind = checked(self.kind, PatchKind, "PatchConfig.kind").value
        result: dict[str, Any] = {"kind": kind}
        for name, needed in _NEEDS[kind].items():
            value = getattr(self, name)
            if not isinstance(value, needed):
                raise TypeError(f"a {kind} patch requires {name} to be {needed.__name__}, not {type(value).__name__}")
            result[name] = value
        if self.mode is not None:
            result["mode"] = self.mode
        if self.replace:
            result["replace"] = True
        return result


class Patch:
    """Factories of `PatchConfig`, for `create(patches=)`.

    Patches are applied in order to the sandbox's own writable layer, before anything can run in it. Guest paths are
    absolute; missing parents are made; `mode` is permission bits; `replace` allows an existing target, which is an
    error otherwise. One that fails ends the creation with `PatchFailedError`, and no sandbox is left.

    Example: `await Sandbox.create("demo", image="host", patches=[Patch.text("/etc/motd", "hello", replace=True)])`
    """

    @staticmethod
    def text(path: str, content: str, *, mode: Union[int, None] = None, replace: bool = False) -> PatchConfig:
        """A text file, written as UTF-8.

        Example: `Patch.text("/etc/motd", "Welcome.\\n", replace=True)`
        """
        return PatchConfig(PatchKind.TEXT, path, content, mode=mode, replace=replace)

    @staticmethod
    def file(path: str, content: bytes, *, mode: Union[int, None] = None, replace: bool = False) -> PatchConfig:
        """A file with these bytes.

        Example: `Patch.file("/opt/key.bin", b"\\x00\\x01", mode=0o600)`
        """
        return PatchConfig(PatchKind.FILE, path, content, mode=mode, replace=replace)

    @staticmethod
    def mkdir(path: str, *, mode: Union[int, None] = None) -> PatchConfig:
        """A directory; an existing one is kept and gets the mode.

        Example: `Patch.mkdir("/opt/app", mode=0o755)`
        """
        return PatchConfig(PatchKind.MKDIR, path, mode=mode)

    @staticmethod
    def append(path: str, content: str) -> PatchConfig:
        """Text at the end of a file that exists.

        Example: `Patch.append("/etc/hosts", "127.0.0.1 app.local\\n")`
        """
        return PatchConfig(PatchKind.APPEND, path, content)

    @staticmethod
    def copy_file(src: Path, dst: str, *, mode: Union[int, None] = None, replace: bool = False) -> PatchConfig:
        """A file of the host, with its permission bits unless `mode` is given.

        Example: `Patch.copy_file("settings.json", "/opt/settings.json")`
        """
        return PatchConfig(PatchKind.COPY_FILE, src=os.fspath(src), dst=dst, mode=mode, replace=replace)

    @staticmethod
    def copy_dir(src: Path, dst: str, *, replace: bool = False) -> PatchConfig:
        """A directory of the host with all that is in it, owned by root; with `replace` merged into an existing one.

        Example: `Patch.copy_dir("src", "/opt/src")`
        """
        return PatchConfig(PatchKind.COPY_DIR, src=os.fspath(src), dst=dst, replace=replace)

    @staticmethod
    def symlink(target: str, link: str, *, replace: bool = False) -> PatchConfig:
        """A symbolic link at `link`; `target` is kept as it is.

        Example: `Patch.symlink("/opt/app/bin/tool", "/usr/local/bin/tool")`
        """
        return PatchConfig(PatchKind.SYMLINK, target=target, link=link, replace=replace)

    @staticmethod
    def remove(path: str) -> PatchConfig:
        """Removes a file or directory; absence is no error.

        Example: `Patch.remove("/etc/motd")`
        """
        return PatchConfig(PatchKind.REMOVE, path)
