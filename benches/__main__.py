"""python -m benches [--quick] [--only ROW,ROW] [--output FILE]"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

from microsandbox import Image, IsolationWarning, LocalBackend

from benches.measure import Row, table
from benches.rows import IMAGE, ROWS, Bench
from benches.yardsticks import Yardsticks

REPOSITORY = Path(__file__).resolve().parent.parent


async def run(options: argparse.Namespace, work: Path) -> list[Row]:
    backend = LocalBackend(home=work / "home", isolation="container")
    await Image.load(str(options.archive), tag=IMAGE, backend=backend)
    bench = Bench(
        work, options.archive, backend, Yardsticks(work / "yardsticks", options.archive), 0.1 if options.quick else 1.0
    )
    rows: list[Row] = []
    for name in options.only.split(",") if options.only else ROWS:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        rows += await ROWS[name](bench)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benches", description="Measure ours and named yardsticks in one run."
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the samples")
    parser.add_argument("--only", help=f"some rows: {', '.join(ROWS)}")
    parser.add_argument("--output", type=Path, help="also write the table to a file")
    parser.add_argument("--archive", type=Path, default=REPOSITORY / ".cache" / "debian-python.oci.tar")
    options = parser.parse_args()
    if os.getuid() != 0:
        print("error: runc and crun are measured as root; run this bench as root", file=sys.stderr)
        return 1
    warnings.simplefilter("ignore", IsolationWarning)
    work = Path(tempfile.mkdtemp(prefix="bench", dir="/tmp"))
    try:
        rows = asyncio.run(run(options, work))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    machine = f"Linux {platform.release()}, {os.cpu_count()} CPUs, {memory} GiB, Python {platform.python_version()}"
    text = f"{machine}; load average {os.getloadavg()[0]:.1f} at the end\n\n{table(rows)}\n"
    print(text)
    if options.output:
        options.output.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
