"""Rows of images: pulling from a registry on loopback against skopeo with umoci, and podman; pruning against `rm -rf`."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benches.measure import Row, at_most, milliseconds, p50, timed

# The registries and archives of the tests.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "plugins"))
from archives import Archive, directory, file, layer
from registry import Answer, FakeRegistry, Registry, Request, start

if TYPE_CHECKING:
    from benches.rows import Bench

MIB = 1 << 20
MSB = [sys.executable, "-m", "microsandbox"]


def seconds(value: float) -> str:
    return f"{value:.2f} s"


@contextmanager
def registry(bench: Bench) -> Iterator[Registry]:
    """A `docker-registry` of its own on loopback."""
    running = start(bench.work / f"registry{time.monotonic_ns()}")
    try:
        yield running
    finally:
        running.end()


@dataclass
class Pullers:
    """Who pulls, each into an empty place of its own."""

    work: Path

    def place(self, name: str) -> Path:
        path = self.work / f"{name}{time.monotonic_ns()}"
        path.mkdir()
        return path

    def ours(self, reference: str, home: Path | None = None, *options: str) -> float:
        place = home or self.place("home")
        environment = {**os.environ, "MSB_HOME": str(place), "MSB_PROGRESS": "0"}
        command = [*MSB, "pull", *options, reference]
        took = timed(lambda: subprocess.run(command, env=environment, check=True, capture_output=True))
        if home is None:
            shutil.rmtree(place)
        return took

    def skopeo_and_umoci(self, reference: str) -> float:
        """To a directory that a runtime can boot from."""
        place = self.place("layout")
        copy = ["skopeo", "--insecure-policy", "copy", "-q", "--src-tls-verify=false"]
        layout = f"{place}/layout:latest"

        def pull() -> None:
            subprocess.run([*copy, f"docker://{reference}", f"oci:{layout}"], check=True)
            unpack = ["umoci", "unpack", "--image", layout, place / "bundle"]
            subprocess.run(unpack, check=True, capture_output=True)

        took = timed(pull)
        shutil.rmtree(place)
        return took

    def podman(self, reference: str) -> float:
        place = self.place("podman")
        command = ["podman", "--root", place / "root", "--runroot", place / "run", "--storage-driver", "overlay"]
        pull = [*command, "pull", "-q", "--tls-verify=false", reference]
        took = timed(lambda: subprocess.run(pull, check=True, capture_output=True))
        subprocess.run(["umount", "-q", place / "root" / "overlay"], check=False)
        shutil.rmtree(place)
        return took


async def pull(bench: Bench) -> list[Row]:
    """The Debian image, and one of twenty small layers: from the registry to layers that boot, synced."""
    pullers = Pullers(bench.work)
    rng = random.Random(1)
    small = [layer([directory(f"d{number}"), file(f"d{number}/f", rng.randbytes(5 * MIB))]) for number in range(20)]
    archive = Archive([layer([directory("bin"), file("bin/sh", mode=0o755)]), *small[1:]])
    many = archive.write(bench.work / "many.tar")
    with registry(bench) as running:
        debian = running.push(bench.archive, "debian:1")
        layers = running.push(many, "many:1")
        rounds = range(bench.count(5))
        of = {"debian": debian, "many": layers}
        ours: dict[str, list[float]] = {name: [] for name in of}
        podman: dict[str, list[float]] = {name: [] for name in of}
        unpacked: list[float] = []
        for _ in rounds:
            for name, reference in of.items():
                ours[name].append(pullers.ours(reference))
                podman[name].append(pullers.podman(reference))
            unpacked.append(pullers.skopeo_and_umoci(debian))
    what = "pull of the Debian image (p50)"
    first = p50(ours["debian"])
    return [
        at_most(what, first, "skopeo copy + umoci unpack", p50(unpacked), 0.5, seconds),
        at_most(what, first, "podman pull", p50(podman["debian"]), 0.35, seconds),
        at_most(
            "pull of 20 layers of 5 MiB (p50)", p50(ours["many"]), "podman pull", p50(podman["many"]), 0.5, seconds
        ),
    ]


async def pull_again(bench: Bench) -> list[Row]:
    """An image that has not changed: requests, and what they take in a process that is running already."""
    from microsandbox import LocalBackend, PullPolicy, Sandbox

    backend = LocalBackend(home=bench.work / f"again{time.monotonic_ns()}", isolation="container")
    with registry(bench) as running:
        reference = running.push(bench.archive, "debian:1")

        async def create(name: str, policy: Any) -> float:
            begin = time.perf_counter()
            box = await Sandbox.create(name, image=reference, pull_policy=policy, backend=backend)
            took = time.perf_counter() - begin
            await box.destroy(force=True)
            return took

        await create("first", PullPolicy.IF_MISSING)
        cached, asked = [], []
        requests = {policy: 0 for policy in (PullPolicy.IF_MISSING, PullPolicy.ALWAYS)}
        count = bench.count(30)
        for number in range(count):
            for policy, samples in ((PullPolicy.IF_MISSING, cached), (PullPolicy.ALWAYS, asked)):
                running.forget()
                samples.append(await create(f"again{number}", policy))
                requests[policy] += len(running.requests())
    added = p50(asked) - p50(cached)
    always = requests[PullPolicy.ALWAYS] / count
    never = requests[PullPolicy.IF_MISSING]
    return [
        Row(
            "unchanged image, ALWAYS: added to create (p50)", milliseconds(added), "", None, "<= 10 ms", added <= 0.010
        ),
        Row("unchanged image, ALWAYS: requests", f"{always:g}", "", None, "1", always == 1),
        Row("cached image, IF_MISSING: requests", f"{never}", "", None, "0", never == 0),
    ]


async def pull_cut(bench: Bench) -> list[Row]:
    """A layer of 200 MiB whose connection is cut at its half: bytes that are sent twice."""
    size = int(200 * min(1.0, bench.scale * 2)) * MIB
    content = layer([directory("bin"), file("bin/sh", mode=0o755), file("big", random.Random(2).randbytes(size))])
    archive = Archive([content], compress=False).write(bench.work / "big.tar")
    fake = FakeRegistry()
    try:
        reference = fake.add(archive, "big")
        blob = fake.images["big:latest"].layers[0]
        half = len(content) // 2
        cuts: list[int] = []

        def cut_once(request: Request) -> Answer | None:
            if blob not in request.path or cuts:
                return None
            cuts.append(half)
            answer = fake.honest(request)
            answer.cut_after = half
            return answer

        fake.meddle = cut_once
        Pullers(bench.work).ours(reference, None, "--insecure")
        sent = sum(request.sent for request in fake.asked(blob, "GET"))
    finally:
        fake.end()
    twice = sent - len(content)
    what = f"{size // MIB} MiB layer cut at its half: sent twice"
    return [Row(what, f"{twice / MIB:.2f} MiB", "", None, "<= 1 MiB", twice <= MIB and len(cuts) == 1)]


async def pull_memory(bench: Bench) -> list[Row]:
    """Growth of the pulling process for one layer of 4 GiB."""
    size = int(4096 * min(1.0, bench.scale * 2)) * MIB
    pullers, block = Pullers(bench.work), random.Random(3).randbytes(MIB)

    def most(reference: str) -> int:
        home = pullers.place("home")
        environment = {**os.environ, "MSB_HOME": str(home), "MSB_PROGRESS": "0"}
        command = ["/usr/bin/time", "-f", "%M", *MSB, "pull", reference]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        shutil.rmtree(home)
        return int(done.stderr.split()[-1]) << 10

    with registry(bench) as running:
        tree = bench.work / "tree"
        (tree / "bin").mkdir(parents=True)
        (tree / "bin" / "sh").write_bytes(b"x")
        small = running_push(running, bench.work, tree, "small")
        with (tree / "big").open("wb") as big:
            for _ in range(size // MIB):
                big.write(block)
        large = running_push(running, bench.work, tree, "large")
        shutil.rmtree(tree)
        grown = most(large) - most(small)
    what = f"pull of a layer of {size // MIB} MiB: memory over a small one"
    return [Row(what, f"{grown / MIB:.1f} MiB", "", None, "<= 48 MiB", grown <= 48 * MIB)]


def running_push(running: Registry, work: Path, tree: Path, name: str) -> str:
    """A tree as an image of one layer, made by umoci, because a large one does not fit in memory."""
    layout = work / f"layout-{name}"
    image = f"{layout}:latest"
    for command in (["init", "--layout", layout], ["new", "--image", image], ["insert", "--image", image, tree, "/"]):
        subprocess.run(["umoci", *command], check=True, capture_output=True)
    reference = f"{running.host}/{name}:1"
    copy = ["skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false"]
    subprocess.run([*copy, f"oci:{image}", f"docker://{reference}"], check=True)
    shutil.rmtree(layout)
    return reference


async def prune(bench: Bench) -> list[Row]:
    """Removing 10,000 layers that no image needs, against `rm -rf` of as many directories."""
    count = bench.count(10_000)
    home = bench.work / f"prune{time.monotonic_ns()}"
    environment = {**os.environ, "MSB_HOME": str(home), "MSB_PROGRESS": "0"}

    def msb(*words: str) -> str:
        return subprocess.run([*MSB, *words], env=environment, check=True, capture_output=True, text=True).stdout

    # A small import makes the directories with the owner that layers have.
    archive = Archive([layer([directory("bin"), file("bin/sh", mode=0o755)])]).write(bench.work / "one.tar")
    msb("image", "load", "-i", str(archive), "--tag", "one:1")
    layers = next(home.rglob("layers"))
    model = next(path for path in layers.iterdir() if path.is_dir() and re.fullmatch("[0-9a-f]{64}", path.name))
    other = bench.work / "other"
    other.mkdir()
    for number in range(count):
        for parent in (layers, other):
            copy = parent / f"{number:064x}"
            subprocess.run(["cp", "-a", model, copy], check=True) if number == 0 else shutil.copytree(model, copy)
        (layers / f"{number:064x}.json").write_text('{"bytes":1,"entries":2}')
    os.sync()
    ours = timed(lambda: msb("prune", "--yes"))
    theirs = timed(lambda: subprocess.run(["rm", "-rf", other], check=True))
    return [at_most(f"prune of {count} layers", ours, "rm -rf", theirs, 2.0, seconds)]
