"""The backend of the conformance suite's cloud: a real `msb serve`, a process of its own over a home of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pace import within

MSB = [sys.executable, "-m", "microsandbox"]


def msb(home: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """One `msb` command on this home."""
    return subprocess.run(
        [*MSB, *arguments],
        env=environment(home),
        check=check,
        capture_output=True,
        text=True,
        timeout=within(30),
        stdin=subprocess.DEVNULL,
    )


def environment(home: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MSB_") or "KRUNFW" in name}
    return {**kept, "MSB_HOME": str(home), "MSB_CONFIG_PATH": str(home / "config.json"), **more}


@dataclass
class ControlPlane:
    """`msb serve` on a free port of loopback, and a key for it."""

    home: Path
    url: str
    key: str
    process: subprocess.Popen[str]
    log: Path
    ended: bool = field(default=False)

    @classmethod
    def start(cls, home: Path, *arguments: str, isolation: str = "container") -> ControlPlane:
        """Without arguments: plain HTTP. The key may do everything but read `/metrics`."""
        key = msb(home, "serve", "key", "create", "test").stdout.splitlines()[-1]
        log = home / "serve.log"
        with log.open("w") as sink:
            process = subprocess.Popen(
                [*MSB, "serve", "--listen", "127.0.0.1:0", *(arguments or ("--insecure-http",))],
                env=environment(home, MSB_ISOLATION=isolation),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=sink,
                text=True,
            )
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("listening on "):
            process.kill()
            process.communicate()
            raise AssertionError(f"msb serve did not come up: {line!r} {log.read_text()}")
        return cls(home, line.split()[-1], key, process, log)

    def backend(self, wire: str = "spec") -> Any:
        from microsandbox import CloudBackend

        return CloudBackend(self.url, self.key, wire=wire)

    def stop(self) -> int:
        """Asks it to end, as a service manager would; its status."""
        if not self.ended:
            self.ended = True
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.communicate(timeout=within(30))
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.communicate()
                raise
        return self.process.returncode
