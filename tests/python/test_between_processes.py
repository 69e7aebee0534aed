"""Errors and results travel between processes with their fields: every public class, so that a new one cannot be forgotten."""

from __future__ import annotations

import collections.abc
import copy
import dataclasses
import enum
import importlib
import inspect
import pickle
import sys
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import microsandbox
import pytest
from clients import said_by
from microsandbox import _microsandbox, errors

# Bound to the process that made them: a connection, a stream, a backend. Or without instances: a namespace of
# constructors, or what is not built yet.
NAMES = """
    AgentClient AgentStream BackendScope CloudBackend LocalBackend ExecHandle ExecSink FsListStream FsReadStream FsWatch FsWriteSink
    SandboxFsOps SandboxHandle SandboxPage ImageHandle ImageDetail Job JobAttachment JobLogStream LogStream MetricsStream
    PullProgressIter PullSession Sandbox Snapshot SnapshotHandle SnapshotCopyBuilder SandboxSshOps SftpClient SshClient
    SshServer SshOutput Storage Volume VolumeFs VolumeHandle MemoryBackend Instrumentation Progress
    Image RootDisk Destination Patch Secret
"""
BOUND = set(NAMES.split())
EXIT = ((137, 9, True, True), (False, 2, 1, 500_000_000))
# Values of Rust: their parts, as `__reduce__` gives them. Every field differs from what is usual.
NATIVE: dict[str, tuple[Any, ...]] = {
    "BackendInfo": ("cloud", "https://service.example", "MSB_PROFILE", "work"),
    "ExecOutput": (EXIT, b"out\xff", b"err\x00", 70, 80),
    "FsEntry": ("/a/b", "symlink", 5, 0o777, 12.5),
    "FsEvent": ("moved", "/new", "/old", True),
    "FsMetadata": ("directory", 6, 0o700, 1, 2, True, 3.5, 4.5),
    "ImageConfigDetail": ("sha256:a", ["A=b"], ["c"], ["e"], "/w", "u", {"l": "m"}, "SIGINT"),
    "ImageLayerDetail": ("sha256:d", "sha256:e", "type", 7, 8, 9),
    "ImagePruneReport": ((1, 2, 3, 4, 5), (6, 7, True), (["a:1"], [("b:1", "box")])),
    "LogEntry": ((1_700_000_000, 123_456_789), "stderr", 3, b"line\xff\n", "cursor"),
    "SandboxMetrics": ((1.5, 2, 3, (4, 5)), (6, 7, 8, 9), (10, 11, 12, 13), (14, 15, 16)),
    "SandboxStopResult": ("box", "crashed", 3, 9, (1_700_000_000, 0), "source"),
}
EVENTS = [
    (0, 42, None, None, None),
    (1, None, b"out", None, None),
    (2, None, b"err", None, None),
    (3, 32, b"broken pipe", None, None),
    (4, None, None, EXIT, None),
    (5, None, None, None, ("not_found", "no such program", 2, "ENOENT", "exec")),
]
NATIVE["ExecEvent"] = EVENTS[0]


def public_classes() -> Iterator[type]:
    seen = set()
    for module in ["microsandbox", *(f"microsandbox.{name}" for name in microsandbox._SUBMODULES)]:
        loaded = importlib.import_module(module)
        for name in loaded.__all__:
            found = getattr(loaded, name)
            if inspect.isclass(found) and found.__module__.startswith("microsandbox") and found not in seen:
                seen.add(found)
                yield found


CLASSES = sorted(public_classes(), key=lambda kind: (kind.__name__, kind.__module__))


def sample(hint: Any) -> Any:
    """A value for a field of this type, other than the usual defaults."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    plain = {
        str: "text",
        int: 3,
        float: 1.5,
        bool: True,
        bytes: b"\xff",
        object: "object",
        Any: "any",
        dict: {"k": "v"},
    }
    if hint in plain:
        return plain[hint]
    if origin in (typing.Union, types.UnionType):
        return sample(next(part for part in arguments if part is not type(None)))
    if origin in (tuple, list, collections.abc.Sequence):
        items = [sample(part) for part in arguments if part is not Ellipsis]
        return tuple(items) if origin is tuple else items
    if origin in (dict, collections.abc.Mapping):
        return {sample(arguments[0]): sample(arguments[1])}
    if origin is typing.Literal:
        return arguments[0]
    if inspect.isclass(hint) and issubclass(hint, enum.Enum):
        return list(hint)[-1]
    if inspect.isclass(hint) and issubclass(hint, Exception):
        return hint("an error in a field")
    if inspect.isclass(hint):
        return instance(hint)
    raise AssertionError(f"no sample for {hint}")


# What checks its fields against each other.
MADE: dict[str, Callable[[], Any]] = {
    "MountConfig": lambda: microsandbox.Volume.bind("/srv", uid=5, gid=6, readonly=True),
    "InstallOptions": lambda: microsandbox.InstallOptions("archive", "/a", "1.0", True, False, "ab"),
    "Network": lambda: microsandbox.Network(
        ports={8080: 80}, deny_domains=("a.example",), max_tcp_connections=7, strict=False
    ),
    "OutboundProxy": lambda: microsandbox.OutboundProxy("socks4", "proxy:1080", user_id="me"),
    "SecretSource": lambda: microsandbox.SecretSource.env("TOKEN"),
    "Path": lambda: Path("/a/b"),
}


def hints(kind: type) -> dict[str, Any]:
    names = {**vars(sys.modules[kind.__module__]), **{found.__name__: found for found in CLASSES}}
    names |= {name: getattr(microsandbox, name) for name in microsandbox.__all__}
    names |= {"Mapping": collections.abc.Mapping, "Sequence": collections.abc.Sequence, "Any": Any}
    names |= {"Literal": typing.Literal, "Path": Path}
    return {
        name: hint
        for base in reversed(kind.__mro__)
        for name, hint in typing.get_type_hints(base, names, {}).items()
        if base.__module__.startswith("microsandbox")
    }


def instance(kind: type) -> Any:
    name = kind.__name__
    if name in MADE:
        return MADE[name]()
    if name in NATIVE:
        return _microsandbox._restore(name, NATIVE[name])
    if issubclass(kind, errors.JobError):
        return kind("job_code", "it failed", "job-1")
    if issubclass(kind, BaseException):
        error = kind("what, where, what to do")
        for field, hint in hints(kind).items():
            if not isinstance(getattr(kind, field, None), property):
                setattr(error, field, sample(hint))
        error.retryable = True  # type: ignore[attr-defined]
        if isinstance(error, OSError):
            error.errno = 28
        return error
    if issubclass(kind, enum.Enum):
        return list(kind)[-1]
    if dataclasses.is_dataclass(kind):
        wanted = hints(kind)
        return kind(**{field.name: sample(wanted[field.name]) for field in dataclasses.fields(kind) if field.init})
    if kind is errors.PublishedSnapshotArtifact:
        return kind("k", "/p", "s", "d")
    raise AssertionError(f"{kind.__module__}.{name}: how is a sample of it made, or why does it not travel?")


def fields(value: Any) -> dict[str, Any]:
    """Everything that its user can read of it."""
    found = {}
    for name in dir(value):
        if name.startswith("_"):
            continue
        try:
            part = getattr(value, name)
        except UnicodeDecodeError as error:
            part = str(error)
        except AttributeError:
            continue  # `characters_written` of an OSError.
        if not callable(part):
            found[name] = part
    return found


def same(left: Any, right: Any) -> bool:
    if type(left) is not type(right):
        return False
    if isinstance(left, (str, bytes, int, float, bool, type(None), enum.Enum, Path)):
        return bool(left == right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, BaseException) and (str(left), left.args) != (str(right), right.args):
        return False
    return same(fields(left), fields(right)) and same(vars_of(left), vars_of(right))


def vars_of(value: Any) -> dict[str, Any]:
    return dict(getattr(value, "__dict__", {}))


COPIES: list[Callable[[Any], Any]] = [
    *(lambda value, protocol=p: pickle.loads(pickle.dumps(value, protocol)) for p in range(2, 6)),
    copy.copy,
    copy.deepcopy,
]


@pytest.mark.parametrize("kind", [k for k in CLASSES if k.__name__ not in BOUND], ids=lambda k: k.__name__)
def test_a_public_class_travels_with_its_fields(kind: type) -> None:
    if typing.is_typeddict(kind) or kind.__name__ in ("ExecOptions", "InitOptions"):
        return  # A plain dict.
    value = instance(kind)
    for again in (make(value) for make in COPIES):
        assert same(again, value), f"{fields(again)} is not {fields(value)}"


def test_the_bound_classes_are_public_ones() -> None:
    assert {kind.__name__ for kind in CLASSES} >= BOUND


@pytest.mark.parametrize("parts", EVENTS, ids=["started", "stdout", "stderr", "stdin error", "exited", "failed"])
def test_every_event_of_a_program_travels(parts: tuple[Any, ...]) -> None:
    event = _microsandbox._restore("ExecEvent", parts)
    again = pickle.loads(pickle.dumps(event))
    assert same(again, event) and repr(again) == repr(event)


def test_what_is_no_value_of_ours_is_refused() -> None:
    with pytest.raises(ValueError, match="no value of this version"):
        _microsandbox._restore("Sandbox", ())
    with pytest.raises((TypeError, ValueError)):
        _microsandbox._restore("ExecOutput", (1, 2))
    with pytest.raises(ValueError, match="not the parts"):
        _microsandbox._restore("ExecEvent", (9, None, None, None, None))


def test_an_error_of_a_users_own_class_travels() -> None:
    error = OwnError(7, "two words")
    error.detail = [1, 2]
    again = pickle.loads(pickle.dumps(error))
    assert same(again, error) and again.number == 7


class OwnError(errors.ExecTimeoutError):
    def __init__(self, number: int, text: str) -> None:
        super().__init__(f"{number}: {text}")
        self.number = number
        self.detail: list[int] = []


def test_a_connection_says_that_it_does_not_travel() -> None:
    from microsandbox import sync
    from microsandbox.testing import MemoryBackend

    backend = MemoryBackend()
    box = sync.Sandbox.create("box", image="host", backend=backend)
    for bound in (box, box.fs, sync.Sandbox.list(backend=backend), backend):
        with pytest.raises(TypeError, match="belongs to the process"):
            pickle.dumps(bound)
    box.destroy(force=True)


PROGRAM = """
import multiprocessing, os, pickle, sys, warnings
warnings.simplefilter("ignore")
from concurrent.futures import ProcessPoolExecutor
from microsandbox import *
from microsandbox import sync

def work(what):
    box = sync.Sandbox.get("parent").connect()
    if what == "timeout":
        return box.exec("sh", ["-c", "echo early; sleep 30"], timeout=0.5)
    if what == "job":
        return box.get_job("none-such")
    if what == "missing":
        return box.exec("no-such-program")
    if what == "file":
        return box.fs.read("/no-such-file")
    if what == "name":
        return sync.Sandbox.get("nobody")
    return box.exec("sh", ["-c", "echo out; echo err >&2; exit 3"])

def said(error):
    return type(error).__name__, error.code, error.retryable, getattr(error, "kind", None)

def collect(call):
    found = []
    for what in ("timeout", "job", "missing", "file", "name"):
        try:
            call(what)
        except MicrosandboxError as error:
            found.append(said(error))
            if what == "timeout":
                found.append((error.timeout, error.output.stdout_text))
    output = call("output")
    return found + [(output.exit_code, output.stdout_text, output.stderr_text)]

if __name__ == "__main__":
    with sync.Sandbox.create("parent", image="host"):
        here = collect(work)
        context = multiprocessing.get_context(sys.argv[1])
        with context.Pool(1) as pool:
            assert collect(lambda what: pool.apply_async(work, (what,)).get(30)) == here
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            assert collect(lambda what: pool.submit(work, what).result(30)) == here
        print(len(here), here[0], here[1])
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_errors_and_results_come_out_of_workers(home: Path, tmp_path: Path, method: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    assert (
        said_by(program, method, timeout=90, MSB_ISOLATION="container")
        == "7 ('ExecTimeoutError', 'exec-timeout', False, None) (0.5, 'early\\n')\n"
    )
