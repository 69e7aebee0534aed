"""This terminal in a sandbox."""

import asyncio

from microsandbox import Sandbox


async def main():
    sb = await Sandbox.create("shell-attach", image="alpine", cpus=1, memory=512, replace=True)
    code = await sb.attach_shell()
    print("shell ended with", code)
    await sb.stop()
    await Sandbox.remove("shell-attach")


asyncio.run(main())
