"""systemd as the first process."""

import asyncio

from microsandbox import Sandbox


async def main():
    sb = await Sandbox.create("init-handoff", image="systemd", init="auto", cpus=2, memory=1024, replace=True)
    print("pid 1:", (await sb.shell("cat /proc/1/comm")).stdout_text.strip())
    state = ""
    while state not in ("running", "degraded"):
        await asyncio.sleep(0.5)
        state = (await sb.shell("systemctl is-system-running --wait")).stdout_text.strip()
    print("state:", state)
    services = await sb.shell("systemctl list-units --type=service --no-legend --no-pager")
    print("services:", len(services.stdout_text.splitlines()) >= 1)
    await sb.stop()
    print("stopped:", (await Sandbox.get("init-handoff")).status)
    await Sandbox.remove("init-handoff")


asyncio.run(main())
