"""Five samples of a busy sandbox."""

import asyncio

from microsandbox import Sandbox


async def main():
    sb = await Sandbox.create("metrics-stream", image="alpine", cpus=1, memory=512, replace=True)
    await sb.shell("while :; do :; done >/dev/null 2>&1 &")
    seen = []
    async for sample in await sb.metrics_stream(interval=1.0):
        seen.append(sample)
        print(f"cpu={sample.cpu_percent:.1f}% memory={sample.memory_bytes // 1024} KiB")
        if len(seen) == 5:
            break
    print("samples:", len(seen), "busy:", any(sample.cpu_percent > 0 for sample in seen))
    await sb.stop()
    await Sandbox.remove("metrics-stream")


asyncio.run(main())
