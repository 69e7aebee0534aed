"""A directory of this machine as the root file system."""

import asyncio

from microsandbox import Sandbox


async def main():
    async with await Sandbox.create("root-bind", image="./rootfs", cpus=1, memory=512, replace=True) as sb:
        out = await sb.shell("echo 'Hello from a sandbox!'")
        print(out.stdout_text.strip(), "code:", out.exit_code)
        print((await sb.exec("uname", ["-s"])).stdout_text.strip())
        print((await sb.shell("cat /etc/os-release")).stdout_text)


asyncio.run(main())
