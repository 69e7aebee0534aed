"""What ours is measured against: crun, runc and bwrap on the root file system of our sandboxes, and plain processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Yardsticks:
    """A bundle that runs `true` from the Debian image, and the tools that can run it on this machine."""

    def __init__(self, work: Path, archive: Path) -> None:
        self.work = work
        layout = work / "layout"
        layout.mkdir(parents=True)
        subprocess.run(["tar", "-xf", archive, "-C", layout], check=True)
        self.layer = max(layout.glob("blobs/sha256/*"), key=lambda path: path.stat().st_size)
        subprocess.run(
            ["umoci", "unpack", "--image", f"{layout}:latest", work / "unpacked"], check=True, capture_output=True
        )
        self.root = work / "unpacked" / "rootfs"
        self.bundle = work / "bundle"
        self.bundle.mkdir()
        subprocess.run(["runc", "spec", "--bundle", self.bundle], check=True)
        self.configure(["true"])
        self.count = 0
        self.crun = self.find_crun()
        self.runc = ["runc"] if self.works(["runc"]) else None

    def configure(self, arguments: list[str]) -> None:
        path = self.bundle / "config.json"
        config = json.loads(path.read_text())
        config["process"].update(terminal=False, args=arguments)
        config["root"] = {"path": str(self.root), "readonly": True}
        # The limits of our default sandbox, so that every tool makes the same control groups.
        config["linux"]["resources"] = {
            "memory": {"limit": 512 << 20},
            "pids": {"limit": 1024},
            "cpu": {"quota": 100_000, "period": 100_000},
        }
        path.write_text(json.dumps(config))

    def find_crun(self) -> list[str] | None:
        if not shutil.which("crun"):
            return None
        return ["crun"] if self.works(["crun"]) else None

    def works(self, tool: list[str]) -> bool:
        return bool(shutil.which(tool[0])) and subprocess.run(self.command(tool), capture_output=True).returncode == 0

    def command(self, tool: list[str]) -> list[str]:
        self.count += 1
        return [
            *tool,
            "--root",
            str(self.work / f"state-{tool[0]}"),
            "run",
            "--bundle",
            str(self.bundle),
            f"yardstick{os.getpid()}x{self.count}",
        ]

    def run(self, tool: list[str]) -> None:
        subprocess.run(self.command(tool), check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def bwrap(self) -> None:
        subprocess.run(
            [
                "bwrap",
                "--unshare-all",
                "--die-with-parent",
                "--ro-bind",
                self.root,
                "/",
                "--proc",
                "/proc",
                "--dev",
                "/dev",
                "true",
            ],
            check=True,
        )

    @contextmanager
    def running_runc(self) -> Iterator[list[str]]:
        """A sleeping container; yields the command that executes `true` in it."""
        self.configure(["sleep", "600"])
        base = ["runc", "--root", str(self.work / "state-exec")]
        name = f"exec{os.getpid()}"
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        try:
            subprocess.run([*base, "run", "-d", "--bundle", str(self.bundle), name], check=True, **quiet)
            yield [*base, "exec", name, "true"]
        finally:
            subprocess.run([*base, "delete", "--force", name], check=False, **quiet)
            self.configure(["true"])


def bare_exec(program: str) -> None:
    """fork+exec and wait, nothing else: the time of the kernel alone."""
    pid = os.posix_spawn(program, [program], os.environ)
    os.waitpid(pid, 0)
