"""A sandbox in a cloud: what it prints is followed, then it goes."""

import asyncio
import sys

from microsandbox import BackendKind, LogReadSource, Sandbox, SandboxStatus, default_backend_kind


async def main():
    if default_backend_kind() is not BackendKind.CLOUD:
        sys.exit("set MSB_BACKEND=cloud and MSB_API_KEY")
    sb = await Sandbox.create(
        "cloud-backend",
        image="alpine",
        cpus=1,
        memory=512,
        entrypoint=["sh", "-c", "for i in 1 2 3; do echo line $i; done; sleep 300"],
        max_duration=300,
        replace=True,
    )
    out = await sb.shell("echo hello")
    print("exec code:", out.exit_code, out.stdout_text.strip())
    stream = await sb.log_stream(
        follow=True, sources=[LogReadSource.STDOUT, LogReadSource.STDERR, LogReadSource.SYSTEM]
    )
    entries = 0
    for _ in range(3):
        try:
            entry = await asyncio.wait_for(anext(stream), 5)
        except (asyncio.TimeoutError, StopAsyncIteration):
            break
        entries += 1
        print(f"{entry.timestamp_ms:.0f} [{entry.source}] {entry.text().strip()}")
    print("entries:", entries)
    handle = await Sandbox.get("cloud-backend")
    await handle.stop()
    for _ in range(60):
        handle = await handle.refresh()
        if handle.status is SandboxStatus.STOPPED:
            break
        await asyncio.sleep(0.5)
    print("status:", handle.status)
    await handle.remove()
    print("removed")


asyncio.run(main())
