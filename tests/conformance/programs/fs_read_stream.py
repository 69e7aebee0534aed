"""Ten mebibytes out of a sandbox, chunk by chunk."""

import asyncio

from microsandbox import Sandbox


async def main():
    sb = await Sandbox.create("fs-read-stream", image="alpine", cpus=1, memory=512, replace=True)
    await sb.shell("dd if=/dev/urandom of=/tmp/random.bin bs=1M count=10 2>/dev/null")
    chunks = total = 0
    stream = await sb.fs.read_stream("/tmp/random.bin")
    async for chunk in stream:
        chunks += 1
        total += len(chunk)
    print("chunks:", chunks)
    print("total:", total)
    await sb.stop()
    await Sandbox.remove("fs-read-stream")


asyncio.run(main())
