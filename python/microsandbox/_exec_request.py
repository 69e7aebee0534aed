"""What the calls that run a program take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict, Union

from ._checks import serialised
from ._enums import RlimitResource, StdinMode
from ._signature import refuse_unknown


@dataclass(frozen=True)
class Rlimit:
    """A soft and a hard limit of one resource, in the units of setrlimit(2).

    In a container a program gets no more than its sandbox has: 65,536 open files, 8 MiB of locked memory, 16,384
    queued signals, 409,600 bytes of message queues; `Sandbox.create(rlimits=)` raises these.

    Example: `await sb.exec("make", rlimits=[Rlimit.nofile(256)])`.
    """

    resource: RlimitResource
    soft: int
    hard: int

    @classmethod
    def nofile(cls, limit: int) -> Rlimit:
        """Open files.

        Example: `await sb.exec("make", rlimits=[Rlimit.nofile(4096)])`
        """
        return cls(RlimitResource.NOFILE, limit, limit)

    @classmethod
    def cpu(cls, secs: int) -> Rlimit:
        """CPU seconds.

        Example: `await sb.exec("make", rlimits=[Rlimit.cpu(60)])`
        """
        return cls(RlimitResource.CPU, secs, secs)

    @classmethod
    def as_(cls, *, soft: int, hard: int) -> Rlimit:
        """Address space, bytes.

        Example: `await sb.exec("make", rlimits=[Rlimit.as_(soft=1 << 30, hard=2 << 30)])`
        """
        return cls(RlimitResource.AS, soft, hard)

    @classmethod
    def nproc(cls, limit: int) -> Rlimit:
        """Processes of the user.

        Example: `await sb.exec("make", rlimits=[Rlimit.nproc(64)])`
        """
        return cls(RlimitResource.NPROC, limit, limit)

    @classmethod
    def fsize(cls, limit: int) -> Rlimit:
        """Size of one written file, bytes.

        Example: `await sb.exec("make", rlimits=[Rlimit.fsize(100 << 20)])`
        """
        return cls(RlimitResource.FSIZE, limit, limit)

    @classmethod
    def memlock(cls, limit: int) -> Rlimit:
        """Locked memory, bytes.

        Example: `await sb.exec("make", rlimits=[Rlimit.memlock(64 << 10)])`
        """
        return cls(RlimitResource.MEMLOCK, limit, limit)

    @classmethod
    def stack(cls, limit: int) -> Rlimit:
        """Stack, bytes.

        Example: `await sb.exec("make", rlimits=[Rlimit.stack(8 << 20)])`
        """
        return cls(RlimitResource.STACK, limit, limit)

    def _to_dict(self) -> dict[str, Any]:
        return serialised(self, {"resource": RlimitResource})


@dataclass(frozen=True)
class Stdin:
    """What a program reads as standard input; nothing unless said otherwise.

    Example: `await sb.exec("wc", stdin=Stdin.bytes(b"one two"))`.
    """

    _mode: StdinMode
    _data: Union[bytes, None] = field(default=None, repr=False)

    @classmethod
    def null(cls) -> Stdin:
        """An empty input.

        Example: `await sb.exec("cat", stdin=Stdin.null())`
        """
        return cls(StdinMode.NULL)

    @classmethod
    def pipe(cls) -> Stdin:
        """Written through `ExecHandle.take_stdin`; streaming calls only.

        Example: `process = await sb.exec_stream("cat", stdin=Stdin.pipe())`
        """
        return cls(StdinMode.PIPE)

    @classmethod
    def bytes(cls, data: Any) -> Stdin:
        """These bytes, then the end of file.

        Example: `await sb.exec("wc", ["-c"], stdin=Stdin.bytes(b"12345"))`
        """
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"Stdin.bytes() needs bytes, not {type(data).__name__}")
        return cls(StdinMode.BYTES, bytes(data))


@dataclass(frozen=True)
class ExitStatus:
    """How a program ended: its exit status (or 128 + signal), and whether that is 0.

    Example: `status = ExitStatus(*await process.wait())`
    """

    code: int
    success: bool


class ExecOptions(TypedDict, total=False):
    """Second positional argument of `exec` and `exec_stream` as a mapping; its values win over keywords.

    Example: `await sb.exec("make", ExecOptions(args=["-j2"], cwd="/src", timeout=600))`
    """

    args: list[str]
    cwd: str
    user: str
    env: Mapping[str, str]
    timeout: float
    stdin: Union[Stdin, bytes]
    stdin_data: bytes
    tty: bool
    rlimits: list[Rlimit]
    max_output_bytes: int


class DetachedKeywords(TypedDict, total=False):
    """Keywords of `exec_detached`; None is as good as absent."""

    cwd: str | None
    user: str | None
    env: Mapping[str, str] | None
    timeout: float | None
    stdin: Stdin | bytes | None
    tty: bool
    rlimits: list[Rlimit] | None


class ExecKeywords(DetachedKeywords, total=False):
    """Keywords of the other calls that run a program."""

    max_output_bytes: int | None


class AttachKeywords(TypedDict, total=False):
    """Keywords of the calls that bind this terminal to a program."""

    cwd: str | None
    user: str | None
    env: Mapping[str, str] | None
    detach_keys: str | None


_KEYWORDS = frozenset(ExecKeywords.__annotations__)
#: Keys of a mapping in place of `args`.
_OPTIONS = _KEYWORDS | {"args", "stdin_data"}


def request(
    args: list[str] | ExecOptions | None, given: Mapping[str, Any], group: type[Any] = ExecKeywords
) -> dict[str, Any]:
    """The keywords of a run, from `args` as a list or as a mapping whose values win."""
    if not given.keys() <= _KEYWORDS or group is not ExecKeywords:
        refuse_unknown("exec", given, group.__annotations__)
    merged = {**given}
    if isinstance(args, Mapping):
        for name, value in args.items():
            if name not in _OPTIONS:
                raise TypeError(f"unknown exec option: {name}")
            merged[name] = value
    elif isinstance(args, (list, tuple)):
        merged["args"] = args
    elif args is not None:
        raise TypeError(f"args must be a list of strings or a mapping of exec options, not {type(args).__name__}")
    return merged


def attachment(args: list[str] | None, given: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """The keywords of a run on this terminal, and the keys that detach from it."""
    refuse_unknown("attach", given, AttachKeywords.__annotations__)
    options = {**given}
    keys = options.pop("detach_keys", None)
    return request(args, options), keys
