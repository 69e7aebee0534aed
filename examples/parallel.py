"""Untrusted snippets, each in its own sandbox, four at a time: prints their output or how they failed.

python examples/parallel.py
"""

from __future__ import annotations

import asyncio
import warnings

from microsandbox import ExecTimeoutError, IsolationWarning, Sandbox

SNIPPETS = {
    "adds": "print(sum(range(1_000_000)))",
    "fails": "raise SystemExit('not today')",
    "never ends": "while True: pass",
    "looks around": "import os; print(sorted(os.listdir('/home')))",
    "eats memory": "data = []\nwhile True: data.append(bytearray(8 << 20))",
    "writes a file": "open('/tmp/x', 'w').write('mine'); print(open('/tmp/x').read())",
}


async def judge(name: str, code: str) -> str:
    """Runs one snippet and describes the result. Leaving the block kills and removes the sandbox in every case."""
    async with await Sandbox.create(f"judge-{name.replace(' ', '-')}", image="host", memory=128, cpus=1) as sandbox:
        await sandbox.fs.write("/tmp/snippet.py", code.encode())
        try:
            output = await sandbox.exec("python3", ["/tmp/snippet.py"], timeout=3, max_output_bytes=4096)
        except ExecTimeoutError:
            return f"{name}: ended after 3 seconds"
        if output.oom_killed:
            return f"{name}: ended for lack of memory"
        text = (output.stdout_text or output.stderr_text).strip().splitlines()
        return f"{name}: status {output.exit_code}, printed {text[-1] if text else 'nothing'!r}"


async def main() -> None:
    at_once = asyncio.Semaphore(4)

    async def one(name: str, code: str) -> str:
        async with at_once:
            return await judge(name, code)

    for line in await asyncio.gather(*(one(name, code) for name, code in SNIPPETS.items())):
        print(line)


if __name__ == "__main__":
    warnings.simplefilter("ignore", IsolationWarning)
    asyncio.run(main())
