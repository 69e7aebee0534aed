"""The Python face of the cloud client, against a service that answers as each test says."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from microsandbox import (
    CloudBackend,
    CloudHttpError,
    MicrosandboxError,
    Sandbox,
    SandboxStatus,
    UnsupportedError,
    all_sandbox_metrics,
)
from microsandbox.errors import InvalidConfigError
from pace import within
from service import ANSWER, KEY, Service


async def test_an_http_error_carries_its_fields(service: Service) -> None:
    """Case 99."""
    service.status = 403
    service.body = {"error": {"code": "forbidden", "message": f"not with {KEY}"}}
    with pytest.raises(CloudHttpError) as caught:
        await Sandbox.get("box", backend=service.backend())
    assert (caught.value.status, caught.value.error_code) == (403, "forbidden")
    assert "not with" in caught.value.message
    assert "hunter2" not in str(caught.value) + repr(caught.value) + repr(service.backend())


async def test_a_refusal_carries_its_fields(service: Service) -> None:
    """Case 99."""
    with pytest.raises(UnsupportedError) as caught:
        await Sandbox.create("box", image="alpine", replace=True, backend=service.backend(wire="flat"))
    assert caught.value.feature == caught.value.operation == ".replace()"
    assert caught.value.available_when == caught.value.hint == "when cloud sandbox replace semantics land"
    assert not service.seen


async def test_a_sandbox_stays_usable_after_a_refused_removal(service: Service) -> None:
    """Cases 89 and 96."""
    box = await Sandbox.create("box", image="alpine", backend=service.backend())
    before = len(service.seen)
    with pytest.raises(UnsupportedError, match="remove_persisted on cloud"):
        await box.remove_persisted()
    handle = await Sandbox.get("box", backend=service.backend())
    with pytest.raises(UnsupportedError) as caught:
        await handle.snapshot("x")
    assert caught.value.feature == "SandboxHandle::snapshot on cloud"
    assert [call for call, *_ in service.seen[before:]] == ["GET"]
    assert (await box.status()) == "running"


@pytest.mark.parametrize(
    ("url", "key", "why"),
    [
        ("example.test", KEY, "no scheme"),
        ("https://user:secret@example.test", KEY, "credentials"),
        ("https://example.test:99999", KEY, "malformed"),
        ("https://example.test", "two\nlines", "line break"),
    ],
)
def test_what_can_be_no_address_and_no_key(url: str, key: str, why: str) -> None:
    with pytest.raises(InvalidConfigError, match=why) as caught:
        CloudBackend(url, key)
    assert "secret" not in str(caught.value) and "lines" not in str(caught.value)


async def test_other_threads_run_while_a_call_waits(service: Service) -> None:
    service.delay = 1.0
    ticks: list[float] = []
    done = threading.Event()

    def tick() -> None:
        while not done.wait(0.02):
            ticks.append(time.monotonic())

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        from microsandbox.sync import Sandbox as Blocking

        Blocking.get("box", backend=service.backend())
    finally:
        done.set()
        thread.join(10)
    assert len(ticks) > 10


async def test_an_address_without_a_service_is_named_with_the_cause() -> None:
    with pytest.raises(CloudHttpError, match=r"127\.0\.0\.1:9") as caught:
        await Sandbox.get("box", backend=CloudBackend("http://127.0.0.1:9", KEY))
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    assert caught.value.retryable


async def test_a_status_of_another_version_is_carried_as_such(service: Service) -> None:
    """K3: it made `get` and `list` fail whole."""
    strange = {**ANSWER, "status": "hibernating", "name": "other"}
    service.body = strange
    handle = await Sandbox.get("other", backend=service.backend())
    assert handle.status is SandboxStatus.UNKNOWN
    assert "hibernating" in (handle.last_error or "")
    service.body = {"data": [ANSWER, strange]}
    page = await Sandbox.list(backend=service.backend())
    assert [handle.status for handle in page.sandboxes] == ["running", "unknown"]


async def test_a_list_whose_cursors_repeat_ends_with_an_error(service: Service, home: Path) -> None:
    """K3: a circle of two pages was followed without end."""
    pages = itertools.cycle([{"data": [], "next_cursor": name} for name in ("one", "two")])
    service.answer = lambda: next(pages)
    with pytest.raises(MicrosandboxError, match="repeats a cursor"):
        await asyncio.wait_for(all_sandbox_metrics(backend=service.backend()), within(20))
    assert len(service.seen) == 3
    environment = {**os.environ, "MSB_API_URL": service.url, "MSB_API_KEY": KEY, "MSB_HOME": str(home)}
    listed = [Path(sys.executable).parent / "msb", "list"]
    done = subprocess.run(listed, env=environment, capture_output=True, text=True, timeout=within(30))
    assert done.returncode == 1 and "repeats a cursor" in done.stderr, done.stderr


async def test_a_gateway_without_an_answer_may_be_asked_again(service: Service) -> None:
    """K4: 502, 503 and 504 have one type and can be retried."""
    service.body = {"message": "bad gateway"}
    for service.status in (502, 503, 504):
        with pytest.raises(CloudHttpError) as caught:
            await Sandbox.remove("box", backend=service.backend())
        assert caught.value.status == service.status and caught.value.retryable
