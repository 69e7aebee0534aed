"""What a sandbox said, read when it is over."""

import asyncio

from microsandbox import LogReadSource, Sandbox


async def main():
    sb = await Sandbox.create("logs-read", image="alpine", cpus=1, memory=512, replace=True)
    await sb.shell("echo one; echo two; echo three; echo problem >&2")
    await sb.stop()
    handle = await Sandbox.get("logs-read")
    entries = await handle.logs()
    for entry in entries:
        print(
            f"[{entry.source}] session={entry.session_id} t={entry.timestamp_ms > 0} {' '.join(entry.text().split())!r}"
        )
    everything = await handle.logs(
        sources=[LogReadSource.STDOUT, LogReadSource.STDERR, LogReadSource.OUTPUT, LogReadSource.SYSTEM]
    )
    print("with system:", len(everything) > len(entries))
    print("tail:", len(await handle.logs(tail=1)))
    await handle.remove()


asyncio.run(main())
