"""The Python face of the cloud client, against a service that answers as each test says."""

from __future__ import annotations

import threading
import time

import pytest
from microsandbox import CloudBackend, CloudHttpError, Sandbox, UnsupportedError
from microsandbox.errors import InvalidConfigError
from service import KEY, Service


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
