"""One product's half of the microVM bench, in its own interpreter: `python vm_worker.py ours|peer HOME ARCHIVE FIRST`.

Both have the same API, so one program measures both. Reads one word a line from standard input and responds with one line
of JSON (FIRST is the number in the first sandbox's name): `load`, `life` (create to the first result, a number of execs, stop; seconds each), `quit`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import warnings
from typing import Any

EXECS = 20
MEMORY = 256


async def create(product: str, home: str, name: str) -> Any:
    from microsandbox import Sandbox

    options: dict[str, Any] = {"image": "bb:latest", "memory": MEMORY, "cpus": 1}
    if product == "ours":
        from microsandbox import LocalBackend

        options["backend"] = LocalBackend(home=home, isolation="microvm")
    else:
        from microsandbox import Network

        # Ours has no network to set up yet, so the peer runs without one as well.
        options["network"] = Network.none()
    return await Sandbox.create(name, **options)


async def load(product: str, home: str, archive: str) -> dict[str, Any]:
    from microsandbox import Image

    begin = time.perf_counter()
    if product == "ours":
        from microsandbox import LocalBackend

        await Image.load(archive, tag="bb:latest", backend=LocalBackend(home=home, isolation="microvm"))
    else:
        await Image.load(archive, tag="bb:latest")
    return {"load": time.perf_counter() - begin}


async def life(product: str, home: str, number: int) -> dict[str, Any]:
    name = f"bench{number}"
    begin = time.perf_counter()
    box = await create(product, home, name)
    created = time.perf_counter()
    output = await box.exec("/bin/true")
    first = time.perf_counter()
    assert output.exit_code == 0, output
    steps = {step.step: step.at_us / 1e6 for step in box.boot_timings} if product == "ours" else {}
    execs = []
    for _ in range(EXECS):
        before = time.perf_counter()
        output = await box.exec("/bin/true")
        execs.append(time.perf_counter() - before)
        assert output.exit_code == 0, output
    before = time.perf_counter()
    await box.stop()
    stopped = time.perf_counter()
    from microsandbox import Sandbox

    if product == "ours":
        from microsandbox import LocalBackend

        await Sandbox.remove(name, backend=LocalBackend(home=home, isolation="microvm"))
    else:
        await Sandbox.remove(name)
    return {"create": created - begin, "first": first - begin, "execs": execs, "stop": stopped - before, "steps": steps}


async def main(product: str, home: str, archive: str, number: int) -> None:
    for line in sys.stdin:
        word = line.strip()
        if word == "quit":
            return
        try:
            if word == "load":
                answer = await load(product, home, archive)
            else:
                number += 1
                answer = await life(product, home, number)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    asyncio.run(main(*sys.argv[1:4], int(sys.argv[4])))
