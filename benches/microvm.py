"""python -m benches.microvm: our microVM against the peer microsandbox 0.7.11, alternately, in one run of the emulated machine.

Each product has its own interpreter (`vm_worker.py`) and its own home on the same ext4 file system, and the same image.
`--only peer` measures one side; a trace of our boot's steps follows the table.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benches.measure import at_most, milliseconds, table

HERE = Path(__file__).resolve().parent


class Worker:
    """One product: starts its worker, sends requests and reads responses. An error is printed and restarts the worker."""

    def __init__(self, product: str, python: Path, home: Path, archive: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.product, self.python, self.home, self.archive = product, python, home, archive
        self.lives = 0
        self.process = self.start()

    def start(self) -> subprocess.Popen[str]:
        environment = {**os.environ, "MSB_HOME": str(self.home)}
        if self.product == "peer":
            # The peer reads the same variable and has its own library.
            environment.pop("MSB_LIBKRUNFW_PATH", None)
        return subprocess.Popen(
            [self.python, HERE / "vm_worker.py", self.product, self.home, self.archive, str(self.lives)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, word: str) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.lives += 1
        begin = time.monotonic()
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "its program ended"}
        shown = {key: round(value, 2) for key, value in answer.items() if isinstance(value, float)}
        if "execs" in answer:
            shown["exec"] = round(statistics.median(answer["execs"]), 3)
        print(f"{self.product} {word} ({time.monotonic() - begin:.1f} s): {answer.get('error', shown)}", flush=True)
        if "error" in answer:
            self.close()
            self.process = self.start()
        return answer

    def life(self) -> dict[str, Any]:
        """One create, execs and stop. A failure is retried, three attempts in total: the peer queries its runtime with a
        deadline that a slow machine sometimes misses."""
        for _ in range(3):
            if "error" not in (answer := self.ask("life")):
                break
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def workers(options: argparse.Namespace) -> Iterator[list[Worker]]:
    products = {"ours": Path(sys.executable), "peer": options.peer}
    chosen = [options.only] if options.only else list(products)
    started = [Worker(name, products[name], options.place / name, options.archive) for name in chosen]
    try:
        yield started
    finally:
        for worker in started:
            worker.close()


def measure(options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Measures the products alternately; a failed life is printed and not counted."""
    lives: dict[str, list[dict[str, Any]]] = {}
    with workers(options) as products:
        for worker in products:
            if "error" in worker.ask("load"):
                raise SystemExit(f"{worker.product} cannot load the image")
        # The first life of each fills caches.
        for round_ in range(options.rounds + 1):
            for worker in products:
                life = worker.life()
                if round_ and "error" not in life:
                    lives.setdefault(worker.product, []).append(life)
    return lives


def median(lives: list[dict[str, Any]], what: str) -> float:
    if what == "execs":
        return statistics.median(sample for life in lives for sample in life["execs"])
    return float(statistics.median(life[what] for life in lives))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benches.microvm")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["ours", "peer"])
    parser.add_argument("--peer", type=Path, required=True, help="the interpreter of the peer's virtual environment")
    parser.add_argument("--archive", type=Path, required=True)
    parser.add_argument("--place", type=Path, default=Path("/mnt"), help="where the homes go; ext4")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    lives = measure(options)
    head = f"Linux {os.uname().release} in emulation, {os.cpu_count()} CPUs; {options.rounds} lives each, alternately\n"
    peer = lives.get("peer")
    if "ours" not in lives:
        figures = (
            {what: milliseconds(median(peer, what)) for what in ("create", "first", "execs", "stop")} if peer else {}
        )
        print(head, figures)
        return 0 if peer else 1
    ours = lives["ours"]
    rows = [
        at_most(what, median(ours, key), "peer", median(peer, key) if peer else None, limit, milliseconds)
        for what, key, limit in (
            ("create (image cached) to first exec result (p50)", "first", 0.6),
            ("exec `true` (p50)", "execs", 0.5),
            ("stop (p50)", "stop", 0.5),
        )
    ]
    trace = [f"- {step}: {milliseconds(median_of(ours, step))}" for step in ours[-1].get("steps", {})]
    text = "\n".join([head, table(rows), "Our boot, from the spawn on (p50):", "", *trace, ""])
    print(text)
    if options.output:
        options.output.write_text(text)
    short = [f"{name}: {len(of)} of {options.rounds}" for name, of in lives.items() if len(of) < options.rounds]
    if short:
        print("lives that did not fail:", ", ".join(short))
    return 0 if peer or options.only else 1


def median_of(lives: list[dict[str, Any]], step: str) -> float:
    return statistics.median(life["steps"][step] for life in lives if step in life.get("steps", {}))


if __name__ == "__main__":
    sys.exit(main())
