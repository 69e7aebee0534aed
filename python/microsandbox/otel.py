"""Metrics of running sandboxes for OpenTelemetry; needs `pip install microsandbox[otel]`.

Names are those of the semantic conventions for containers (opentelemetry.io, "Semantic conventions for container
metrics"): `container.cpu.time` (s), `container.memory.usage` (By), `container.disk.io` (By, with `disk.io.direction`),
`container.network.io` (By, with `network.io.direction`), `container.uptime` (s). Each point has the attribute
`container.name`.

    from microsandbox import otel

    with otel.instrument():
        ...  # your meter provider reads them at its own interval
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from .errors import MicrosandboxError

if TYPE_CHECKING:
    from ._microsandbox import SandboxMetrics

__all__ = ["Instrumentation", "instrument"]

_Points = Iterable[tuple[float, dict[str, str]]]


def instrument(meter_provider: Any = None, *, max_age: float = 0.5) -> Instrumentation:
    """Registers the instruments with a meter provider (the global one), until the result is closed.

    All instruments of one collection share one look at the sandboxes, at most `max_age` seconds old. A look that fails
    gives no points and is tried again. Raises ImportError that says what to install.
    """
    return Instrumentation(meter_provider, max_age)


class Instrumentation:
    """Registered instruments; a context manager. They cannot be taken back: closed, they give no more points."""

    def __init__(self, meter_provider: Any, max_age: float) -> None:
        try:
            from opentelemetry import metrics  # type: ignore[import-not-found]
        except ImportError:
            text = "microsandbox.otel needs opentelemetry-api: pip install 'microsandbox[otel]'"
            raise ImportError(text) from None
        self._observation = metrics.Observation
        self._max_age = max_age
        self._seen: dict[str, SandboxMetrics] = {}
        self._seen_at = float("-inf")
        self._lock = threading.Lock()
        self._closed = False
        provider = meter_provider or metrics.get_meter_provider()
        self._register(provider.get_meter("microsandbox"))

    def _register(self, meter: Any) -> None:
        counter, gauge = meter.create_observable_counter, meter.create_observable_gauge
        counter("container.cpu.time", [self._points(_cpu)], unit="s", description="Processor time used")
        counter("container.disk.io", [self._points(_disk)], unit="By", description="Bytes read and written")
        counter("container.network.io", [self._points(_network)], unit="By", description="Bytes received and sent")
        gauge("container.memory.usage", [self._points(_memory)], unit="By", description="Memory in use")
        gauge("container.uptime", [self._points(_uptime)], unit="s", description="Time since the start")

    def _points(self, read: Callable[[SandboxMetrics], _Points]) -> Callable[[Any], Iterable[Any]]:
        def observe(_options: Any) -> Iterable[Any]:
            for name, sample in self._look().items():
                for value, attributes in read(sample):
                    yield self._observation(value, {"container.name": name, **attributes})

        return observe

    def _look(self) -> dict[str, SandboxMetrics]:
        from .sync import all_sandbox_metrics

        with self._lock:
            if self._closed:
                return {}
            now = time.monotonic()
            if now - self._seen_at > self._max_age:
                try:
                    self._seen = all_sandbox_metrics()
                except MicrosandboxError:
                    # The exporter must keep running; the next collection looks again.
                    self._seen = {}
                self._seen_at = now
            return self._seen

    def close(self) -> None:
        """Reports no more points. Idempotent."""
        with self._lock:
            self._closed = True

    def __enter__(self) -> Instrumentation:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _cpu(sample: SandboxMetrics) -> _Points:
    return [(sample.vcpu_time_ns / 1e9, {})]


def _disk(sample: SandboxMetrics) -> _Points:
    key = "disk.io.direction"
    return [(sample.disk_read_bytes, {key: "read"}), (sample.disk_write_bytes, {key: "write"})]


def _network(sample: SandboxMetrics) -> _Points:
    key = "network.io.direction"
    return [(sample.net_rx_bytes, {key: "receive"}), (sample.net_tx_bytes, {key: "transmit"})]


def _memory(sample: SandboxMetrics) -> _Points:
    return [(sample.memory_bytes, {})]


def _uptime(sample: SandboxMetrics) -> _Points:
    return [(sample.uptime_ms / 1000, {})]
