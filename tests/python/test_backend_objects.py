"""What backend objects take and show, and the process default."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from microsandbox import (
    CloudBackend,
    InvalidConfigError,
    Isolation,
    LocalBackend,
    LogLevel,
    Sandbox,
    backend_scope,
    default_backend,
    default_backend_info,
    set_default_backend,
    swap_default_backend,
)
from microsandbox.testing import MemoryBackend
from service import KEY, Service


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    previous = swap_default_backend(MemoryBackend())
    yield
    swap_default_backend(previous)


def test_every_setting_of_the_local_backend_is_in_force(tmp_path: Path) -> None:
    names = ("sandboxes", "volumes", "snapshots", "cache", "logs", "secrets")
    backend = LocalBackend(
        home=tmp_path / "home",
        isolation=Isolation.CONTAINER,
        max_connections=3,
        connect_timeout=7,
        busy_timeout=0.5,
        cpus=2,
        memory=1024,
        shell="/bin/bash",
        workdir="/srv",
        log_level=LogLevel.DEBUG,
        metrics_interval=2.5,
        disable_metrics=True,
        ca_certs=tmp_path / "ca.pem",
        registry_hosts={
            "registry.example": {"insecure": True, "auth": {"username": "me", "password_env": "REGISTRY_PASSWORD"}}
        },
        **{f"{name}_dir": tmp_path / name for name in names},  # type: ignore[arg-type]
    )
    assert backend.paths == {
        "home": tmp_path / "home",
        **{name: tmp_path / name for name in names},
        "database": tmp_path / "home" / "db" / "msb.db",
    }
    config = backend.config
    assert (config["isolation"], config["log_level"]) == ("container", "debug")
    assert config["database"] == {"max_connections": 3, "connect_timeout_secs": 7, "busy_timeout_secs": 1}
    defaults = config["sandbox_defaults"]
    assert (defaults["cpus"], defaults["memory_mib"], defaults["shell"], defaults["workdir"]) == (
        2,
        1024,
        "/bin/bash",
        "/srv",
    )
    assert (defaults["metrics_sample_interval_ms"], defaults["disable_metrics_sample"]) == (2500, True)
    assert config["registries"]["ca_certs"] == str(tmp_path / "ca.pem")
    host = config["registries"]["hosts"]["registry.example"]
    assert host["insecure"] and host["auth"]["password_env"] == "REGISTRY_PASSWORD"


def test_metrics_are_switched_off_by_an_interval_of_zero(tmp_path: Path) -> None:
    backend = LocalBackend(home=tmp_path, metrics_interval=0)
    assert backend.config["sandbox_defaults"]["metrics_sample_interval_ms"] is None


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"homes": "/x"}, TypeError, "unexpected keyword argument 'homes'"),
        ({"log_level": "loud"}, TypeError, "log_level must be LogLevel"),
        ({"cpus": 0}, InvalidConfigError, "cpus must be 1 to 255"),
        ({"connect_timeout": -1}, ValueError, "connect_timeout must be non-negative"),
        ({"logs_dir": 7}, TypeError, "logs_dir must be str or os.PathLike"),
        ({"registry_hosts": []}, TypeError, "registry_hosts must be a mapping"),
        ({"registry_hosts": {"a": {"secure": True}}}, TypeError, "unexpected keyword argument 'secure'"),
        ({"registry_hosts": {"a": {"auth": {"username": "me"}}}}, ValueError, "exactly one of store"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(options: dict[str, object], error: type, text: str) -> None:
    with pytest.raises(error) as caught:
        LocalBackend(**options)  # type: ignore[arg-type]
    assert text in str(caught.value)


def test_the_default_backend_is_the_object_that_was_set() -> None:
    first, second = MemoryBackend(), LocalBackend(home="/nowhere")
    set_default_backend(first)
    assert default_backend() is first
    assert swap_default_backend(second) is first
    assert default_backend() is second
    assert default_backend_info().source == "programmatic"
    with backend_scope(first):
        assert default_backend() is first
    assert swap_default_backend(first) is second


async def test_calls_use_the_backend_that_was_swapped_in() -> None:
    backend = MemoryBackend()
    previous = swap_default_backend(backend)
    await Sandbox.create("box", image="host")
    swap_default_backend(previous)
    assert [handle.name for handle in (await Sandbox.list(backend=backend)).sandboxes] == ["box"]
    assert (await Sandbox.list()).sandboxes == []


async def test_every_option_of_the_cloud_backend_is_used(service: Service) -> None:
    backend = service.backend(request_timeout=0.3, user_agent="mine/1.0", wire="spec")
    assert (await Sandbox.get("box", backend=backend)).name == "box"
    assert service.agents == ["mine/1.0"]
    service.delay = 2.0
    with pytest.raises(ConnectionError, match=r"within 0\.3 s"):
        await Sandbox.get("box", backend=backend)


def test_a_certificate_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidConfigError, match="no PEM block"):
        CloudBackend("https://example.test", KEY, ca_certs=[b"nothing"])
    with pytest.raises(TypeError, match=r"ca_certs\[0\] must be PEM bytes or a path"):
        CloudBackend("https://example.test", KEY, ca_certs=[7])  # type: ignore[list-item]
