"""A root file system changed before the first program runs in it."""

import asyncio
import json

from microsandbox import Patch, Sandbox


async def main():
    sb = await Sandbox.create(
        "rootfs-patch",
        image="alpine",
        cpus=1,
        memory=512,
        replace=True,
        patches=[
            Patch.text("/etc/greeting.txt", "Hello from a patch!\n"),
            Patch.text("/etc/motd", "Welcome.\n", replace=True),
            Patch.mkdir("/opt/app", mode=0o755),
            Patch.text("/opt/app/config.json", json.dumps({"debug": True}), mode=0o644),
            Patch.append("/etc/hosts", "127.0.0.1 myapp.local\n"),
        ],
    )
    for path in ("/etc/greeting.txt", "/etc/motd", "/opt/app/config.json"):
        print(path, "->", (await sb.shell(f"cat {path}")).stdout_text.strip())
    print("mode:", (await sb.shell("stat -c %a /opt/app /opt/app/config.json")).stdout_text.split())
    print("hosts:", "myapp.local" in (await sb.shell("cat /etc/hosts")).stdout_text)
    await sb.stop()
    await Sandbox.remove("rootfs-patch")


asyncio.run(main())
