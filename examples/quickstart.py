"""The main job, end to end: data in, code run in a sandbox, result out.

A sandbox made from this machine (`image="host"`, nothing to download) aggregates a CSV of 100,000 rows with the
standard library. A second sandbox, made from a Debian image, then runs the same program with the same result.

    python examples/quickstart.py [DEBIAN_ARCHIVE]
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import random
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from microsandbox import Image, IsolationWarning, Sandbox

ROWS = 100_000
CITIES = ("Lisbon", "Nairobi", "Osaka", "Quito", "Tromsø")

# Runs inside the sandbox: it can read only the sandbox's files, and needs only the standard library.
PROGRAM = """\
import csv, json, platform
from collections import defaultdict

totals = defaultdict(lambda: [0, 0])
with open("/work/sales.csv", newline="", encoding="utf-8") as file:
    for row in csv.DictReader(file):
        entry = totals[row["city"]]
        entry[0] += 1
        entry[1] += int(row["cents"])

result = {city: {"count": count, "cents": cents} for city, (count, cents) in sorted(totals.items())}
with open("/work/result.json", "w", encoding="utf-8") as file:
    json.dump(result, file)
print(f"{sum(v['count'] for v in result.values())} rows with Python {platform.python_version()}")
"""


@contextmanager
def step(text: str) -> Generator[None]:
    """Prints the step and its duration."""
    begin = time.perf_counter()
    yield
    print(f"  {(time.perf_counter() - begin) * 1000:8.1f} ms  {text}")


def make_csv() -> tuple[bytes, dict[str, dict[str, int]]]:
    """The input and the expected result."""
    rng = random.Random(7)
    expected: dict[str, dict[str, int]] = defaultdict(lambda: {"count": 0, "cents": 0})
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(("id", "city", "cents"))
    for number in range(ROWS):
        city, cents = rng.choice(CITIES), rng.randrange(1, 1_000_000)
        writer.writerow((number, city, cents))
        expected[city]["count"] += 1
        expected[city]["cents"] += cents
    return text.getvalue().encode(), dict(expected)


async def show_isolation(sandbox: Sandbox) -> None:
    report = await sandbox.isolation_report()
    states: dict[str, list[str]] = defaultdict(list)
    for mechanism in report.mechanisms:
        states[str(mechanism.state)].append(mechanism.name)
    print(f"  isolated by: {report.driver}")
    for state in ("on", "degraded", "off"):
        if states[state]:
            print(f"    {state}: {', '.join(states[state])}")
    for mechanism in report.mechanisms:
        if str(mechanism.state) != "on":
            print(f"    {mechanism.name} is {mechanism.state}: {mechanism.reason}")


async def aggregate(name: str, image: str, data: bytes) -> dict[str, dict[str, int]]:
    """One sandbox from creation to removal."""
    print(f"\n{name}: image {image!r}")
    with step("create and boot"):
        sandbox = await Sandbox.create(name, image=image, memory=512, replace=True)
    # Leaving the block kills and removes the sandbox, with its record and its files.
    async with sandbox:
        await show_isolation(sandbox)
        with step(f"write {len(data):,} bytes of CSV and the program"):
            await sandbox.fs.mkdir("/work")
            await sandbox.fs.write("/work/sales.csv", data)
            await sandbox.fs.write("/work/aggregate.py", PROGRAM.encode())
        with step("run the program"):
            output = await sandbox.exec("python3", ["/work/aggregate.py"], timeout=120)
        if not output.success:
            raise SystemExit(f"the program failed with {output.exit_code}:\n{output.stderr_text}")
        print(f"  output: {output.stdout_text.strip()}")
        with step("read the result back"):
            result: dict[str, dict[str, int]] = json.loads(await sandbox.fs.read_text("/work/result.json"))
        begin = time.perf_counter()
    print(f"  {(time.perf_counter() - begin) * 1000:8.1f} ms  kill and remove")
    return result


async def main(archive: Path | None) -> None:
    # Issued once per process: which driver this machine uses, and why not the stronger one.
    warnings.simplefilter("always", IsolationWarning)
    with step(f"make {ROWS:,} rows and the expected result"):
        data, expected = make_csv()

    result = await aggregate("quickstart-host", "host", data)
    assert result == expected, f"wrong result: {result}"
    print("  checked: the result is correct")

    if archive is None:
        print("\nNo archive given: the second half needs one (scripts/build-debian-archive makes it).")
        return
    print(f"\nload {archive}")
    with step("load the image (unpacked once, verified by digest)"):
        handles = await Image.load(str(archive), tag="debian-python:latest")
    print(f"  got {handles[0].reference}, {handles[0].layer_count} layer(s)")
    result = await aggregate("quickstart-debian", "debian-python:latest", data)
    assert result == expected, f"wrong result: {result}"
    print("  checked: the same result from Debian")

    left = [handle.name for handle in (await Sandbox.list()).sandboxes if handle.name.startswith("quickstart-")]
    assert not left, f"left behind: {left}"
    print("\nBoth sandboxes gave the same, correct result and are removed.")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
