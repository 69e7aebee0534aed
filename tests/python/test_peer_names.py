"""Names, parameters and types that programs written for the peer's newest version use."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import typing
from typing import Any

import microsandbox
import pytest
from microsandbox import (
    Destination,
    DnsConfig,
    ExternalMountWarning,
    HttpConfig,
    Image,
    Job,
    MemoryCacheEntry,
    Network,
    NetworkRateLimiter,
    OutboundProxy,
    PortBinding,
    RateLimiter,
    Sandbox,
    SandboxHandle,
    ScopedUpstreamCACert,
    ScopedVerifyUpstream,
    Secret,
    SecretInjection,
    SecretSource,
    SecretSubstitution,
    Snapshot,
    SnapshotCopyBuilder,
    StorageCategoryUsage,
    StorageItemUsage,
    TlsConfig,
    TokenBucket,
    UnsupportedError,
    ViolationAction,
    sync,
    types,
)
from microsandbox.testing import MemoryBackend


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_a_copy_of_a_snapshot_has_a_public_class() -> None:
    assert "SnapshotCopyBuilder" in microsandbox.__all__
    assert parameters(Snapshot.copy_to) == ["self", "output_archive_path"]
    assert parameters(SnapshotCopyBuilder.record_integrity) == ["self", "enabled"]
    with pytest.raises(UnsupportedError, match="when snapshots land"):
        SnapshotCopyBuilder()


def test_destinations_and_proxies_take_their_keywords() -> None:
    assert Destination.ip(ip="192.0.2.7").value == "192.0.2.7"
    assert Destination.cidr(cidr="10.0.0.0/8").value == "10.0.0.0/8"
    assert Destination.domain(domain="pypi.org").value == "pypi.org"
    assert Destination.domain_suffix(suffix="pypi.org").value == "pypi.org"
    assert OutboundProxy.http_connect(address="a:1").address == "a:1"
    assert OutboundProxy.socks4(address="a:1", user_id="me").user_id == "me"
    assert OutboundProxy.socks5(address="a:1").protocol == "socks5"


def test_the_image_factories_are_in_the_types_module() -> None:
    assert types.Image is Image
    assert "Image" in types.__all__


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (DnsConfig(nameservers=("1.1.1.1",)), {"rebind_protection": True, "nameservers": ("1.1.1.1",)}),
        (ScopedUpstreamCACert("*.corp", "ca.pem"), {"pattern": "*.corp", "path": "ca.pem"}),
        (ScopedVerifyUpstream("*.test", False), {"pattern": "*.test", "verify": False}),
        (HttpConfig(deny_message="no"), {"deny_response": True, "deny_message": "no", "deny_response_format": "json"}),
        (
            NetworkRateLimiter(egress=RateLimiter(bandwidth=TokenBucket(8, 1000))),
            {"egress": {"bandwidth": {"size": 8, "refill_time_ms": 1000, "one_time_burst": 0}}},
        ),
        (
            OutboundProxy.socks5("a:1").credentials("me", SecretSource.env("PASSWORD")),
            {
                "protocol": "socks5",
                "address": "a:1",
                "username": "me",
                "password": {"kind": "env", "var": "PASSWORD"},
            },
        ),
        (SecretInjection(), {"headers": True, "basic_auth": True, "query_params": False, "body": False}),
        (SecretSubstitution(), {"headers": True, "query": False, "body": False, "header_fields": ()}),
    ],
)
def test_configuration_has_its_serialised_form(value: Any, expected: dict[str, Any]) -> None:
    assert value._to_dict() == expected


def test_nested_configuration_is_serialised_with_it() -> None:
    tls = TlsConfig(scoped_verify_upstream=(ScopedVerifyUpstream("*.test", False),))
    network = Network(tls=tls, dns=DnsConfig(), ports=[PortBinding(8080, 80)])._to_dict()
    assert network["tls"]["scoped_verify_upstream"] == ({"pattern": "*.test", "verify": False},)
    assert network["dns"] == {"rebind_protection": True, "nameservers": ()}
    assert network["ports"][0]["protocol"] == "tcp"
    entry = Secret.env("KEY", value="v", allow=["a.example"], violation_action=ViolationAction.BLOCK)
    assert entry._to_dict()["violation_action"] == "block"


def test_records_have_the_optional_fields() -> None:
    hints = typing.get_type_hints(ExternalMountWarning)
    assert hints["stale_inodes"] == list[int]
    optional = {
        StorageItemUsage: ("logical_bytes", "allocated_bytes", "in_use", "reclaimable"),
        StorageCategoryUsage: ("count", "in_use", "logical_bytes", "allocated_bytes"),
    }
    for kind, names in optional.items():
        hints = typing.get_type_hints(kind)
        assert all(type(None) in typing.get_args(hints[name]) for name in names)
    assert {field.name for field in dataclasses.fields(MemoryCacheEntry)} >= {"kind", "state"}


async def test_the_tail_of_a_jobs_log() -> None:
    backend = MemoryBackend()
    sandbox = await Sandbox.create("box", image="host", backend=backend)
    for function in (Job.logs, Job.log_stream, Job.follow_logs, sync.Job.log_stream, sync.Job.follow_logs):
        assert inspect.signature(function).parameters["tail"].default is None
    assert sandbox


@pytest.mark.parametrize("kind", [Sandbox, SandboxHandle, sync.Sandbox, sync.SandboxHandle])
def test_a_stop_has_ten_seconds_unless_it_says_otherwise(kind: type) -> None:
    assert inspect.signature(kind.stop).parameters["timeout"].default == 10.0


async def test_a_stop_without_a_limit_waits() -> None:
    asked: list[float | None] = []

    class Native:
        async def stop(self, timeout: float | None) -> None:
            asked.append(timeout)

    sandbox, handle = Sandbox(Native()), SandboxHandle(Native())  # type: ignore[arg-type]
    for stopped in (sandbox, handle):
        await stopped.stop()
        await stopped.stop(timeout=None)
        await stopped.stop(0)
    assert asked == [10.0, None, 0] * 2


async def test_a_stop_without_a_limit_ends_a_sandbox() -> None:
    backend = MemoryBackend()
    sandbox = await Sandbox.create("box", image="host", backend=backend)
    await asyncio.wait_for(sandbox.stop(timeout=None), 10)
    assert (await Sandbox.get("box", backend=backend)).status == "stopped"
