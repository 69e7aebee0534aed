"""K11: whatever number a caller gives, the answer is a result or a typed error that names the argument."""

from __future__ import annotations

import asyncio
import inspect
import math
import re
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import microsandbox
import pytest
from microsandbox import CloudBackend, LocalBackend, MicrosandboxError, Sandbox
from microsandbox.testing import MemoryBackend, ScriptResult
from pace import within

NUMBERS = [10**400, -(10**400), 2**64, 2**31, -1, math.nan, math.inf, -math.inf, True, "1", 1.5, 0]
#: What the other arguments get, by their names.
GIVEN: dict[str, Any] = {
    "path": "/tmp/file",
    "src": "/tmp/file",
    "dst": "/tmp/other",
    "source": "/tmp/file",
    "target": "/tmp/other",
    "pattern": "*",
    "name": "box",
    "cmd": "true",
    "script": "true",
    "data": b"x",
    "status": "running",
    "job": "1-1",
    "id": "1-1",
    "body": b"x",
    "image": "host",
    "local_path": "/tmp/msb-absent",
    "host_path": "/tmp/msb-absent",
    "remote_path": "/tmp/file",
    "guest_path": "/tmp/file",
}


def numeric(parameter: inspect.Parameter) -> bool:
    return re.search(r"\b(int|float)\b", str(parameter.annotation)) is not None


def calls(owner: Any) -> Iterator[tuple[str, Callable[..., Any], dict[str, Any], str]]:
    """Every call with a number among its parameters: its name, itself, the other arguments, and that parameter."""
    for name in dir(owner):
        if name.startswith("_"):
            continue
        call = getattr(owner, name)
        try:
            parameters = inspect.signature(call).parameters.values()
        except (TypeError, ValueError):
            continue
        named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        needed = [p for p in named if p.default is p.empty or p.name == "image"]
        for parameter in filter(numeric, parameters):
            others = {p.name: GIVEN.get(p.name, 1 if numeric(p) else "x") for p in needed if p is not parameter}
            yield f"{type(owner).__name__}.{name}({parameter.name})", call, others, parameter.name


async def outcome(call: Callable[..., Any], arguments: dict[str, Any]) -> BaseException | None:
    try:
        result = call(**arguments)
        if inspect.isawaitable(result):
            await asyncio.wait_for(result, 0.05)
        elif hasattr(result, "__anext__"):
            await asyncio.wait_for(result.__anext__(), 0.05)
    except (TimeoutError, asyncio.TimeoutError, StopAsyncIteration):
        return None
    except Exception as error:
        return error
    return None


def fault(error: BaseException | None, parameter: str) -> str | None:
    if error is None or (isinstance(error, MicrosandboxError) and "{}" not in str(error)):
        return None
    if not isinstance(error, (TypeError, ValueError)):
        return f"{type(error).__name__}: {error}"
    if "{}" in str(error) or (parameter.strip("_") not in str(error) and "argument" not in str(error)):
        return f"the message does not name {parameter}: {error}"
    return None


@pytest.fixture
async def owners() -> AsyncIterator[list[Any]]:
    backend = MemoryBackend()
    backend.script("sleeping", lambda call: ScriptResult(delay=within(30)))
    box = await Sandbox.create("box", image="host", backend=backend)
    handle = await Sandbox.get("box", backend=backend)
    running = await box.exec_stream("sleeping")
    with microsandbox.backend_scope(backend):
        yield [box, handle, box.fs, running]
    await running.kill()


async def test_every_call_of_an_object_answers_every_number(owners: list[Any]) -> None:
    wrong, seen = [], 0
    for owner in owners:
        for name, call, others, parameter in calls(owner):
            seen += 1
            for number in NUMBERS:
                error = await outcome(call, {**others, parameter: number})
                if found := fault(error, parameter):
                    wrong.append(f"{name} = {number!r:.20}: {found}")
    assert seen > 20, "the calls are not found any more"
    assert wrong == [], "\n".join(wrong)


async def test_every_keyword_of_creation_answers_every_number(tmp_path: Path) -> None:
    wrong, seen = [], 0
    with microsandbox.backend_scope(MemoryBackend()):
        makers: list[Callable[..., Any]] = [Sandbox.create, LocalBackend, CloudBackend]
        fixed = {
            Sandbox.create: {"name": "made", "image": "host", "replace": True},
            CloudBackend: {"url": "http://127.0.0.1:9", "api_key": "key-of-a-test"},
        }
        for maker in makers:
            for parameter in filter(numeric, inspect.signature(maker).parameters.values()):
                seen += 1
                for number in NUMBERS:
                    error = await outcome(maker, {**fixed.get(maker, {}), parameter.name: number})
                    if found := fault(error, parameter.name):
                        wrong.append(f"{maker.__qualname__}({parameter.name}={number!r:.20}): {found}")
    assert seen > 10, "the keywords are not found any more"
    assert wrong == [], "\n".join(wrong)


@pytest.mark.parametrize("delay", [float("nan"), float("inf"), -1.0, True, "1"])
async def test_a_delay_of_a_script_that_is_no_time_is_named(delay: Any) -> None:
    backend = MemoryBackend()
    backend.script("slow", lambda call: ScriptResult(delay=delay))
    box = await Sandbox.create("box", image="host", backend=backend)
    done = await asyncio.wait_for(box.exec("slow"), within(20))
    assert done.exit_code == 1
    assert "delay must be" in done.stderr_text
