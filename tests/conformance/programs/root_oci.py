"""An image by its bare name, with a talkative runtime."""

import asyncio

from microsandbox import LogLevel, Sandbox


async def main():
    sb = await Sandbox.create("root-oci", image="alpine", cpus=1, memory=512, log_level=LogLevel.DEBUG, replace=True)
    try:
        out = await sb.shell("echo 'Hello from a sandbox!'")
        print(out.stdout_text.strip(), "code:", out.exit_code)
        print((await sb.exec("uname", ["-s"])).stdout_text.strip())
        print((await sb.shell("cat /etc/os-release")).stdout_text)
    finally:
        await sb.stop()
    await Sandbox.remove("root-oci")


asyncio.run(main())
