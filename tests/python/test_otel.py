"""The exporter for OpenTelemetry, with the real SDK and a real sandbox."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from microsandbox import LocalBackend, backend_scope, otel
from microsandbox.sync import Sandbox
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader


def points(reader: InMemoryMetricReader) -> dict[tuple[str, ...], float]:
    data = reader.get_metrics_data()
    if data is None:
        return {}
    return {
        (metric.name, metric.unit, *(str(value) for value in sorted(point.attributes.values()))): point.value
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    }


def test_running_sandboxes_are_exported(home: Path) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    with (
        backend_scope(LocalBackend(home=home)),
        otel.instrument(provider, max_age=0),
        Sandbox.create("box", image="host", memory=128) as box,
    ):
        box.exec("python3", ["-c", "sum(range(3_000_000))"])
        seen = points(reader)
        assert {key[:2] for key in seen} == {
            ("container.cpu.time", "s"),
            ("container.disk.io", "By"),
            ("container.network.io", "By"),
            ("container.memory.usage", "By"),
            ("container.uptime", "s"),
        }
        assert 0 < seen["container.memory.usage", "By", "box"] < 128 << 20
        assert seen["container.cpu.time", "s", "box"] > 0
        assert ("container.disk.io", "By", "box", "read") in seen
        assert ("container.network.io", "By", "box", "transmit") in seen
        box.stop()
        assert points(reader) == {}
        box.destroy(force=True)
    assert points(reader) == {}
    provider.shutdown()


def test_without_the_package_the_error_says_what_to_install() -> None:
    program = "import sys; sys.modules['opentelemetry'] = None\nfrom microsandbox import otel\notel.instrument()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "pip install 'microsandbox[otel]'" in done.stderr
