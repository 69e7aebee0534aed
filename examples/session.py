"""Without `await`, as in a notebook: several steps in one sandbox, then a stop and a start.

python examples/session.py
"""

from __future__ import annotations

import warnings

from microsandbox import ExecEventType, IsolationWarning
from microsandbox.sync import Sandbox


def main() -> None:
    with Sandbox.create("session", image="host", env={"GREETING": "hello"}) as sandbox:
        print(sandbox.shell("echo $GREETING from $(hostname)").stdout_text.strip())

        sandbox.fs.mkdir("/inbox")
        sandbox.fs.write("/inbox/poem.txt", b"one\ntwo\nthree\n")
        print("files:", [entry.path for entry in sandbox.fs.list("/inbox")])

        # Output while the program runs.
        for event in sandbox.exec_stream("sh", ["-c", "while read line; do echo got $line; done < /inbox/poem.txt"]):
            if event.event_type is ExecEventType.STDOUT and event.data:
                print(event.data.decode(), end="")

        # A stopped sandbox keeps its files.
        sandbox.stop()
        again = Sandbox.start("session")
        print("kept:", again.fs.read_text("/inbox/poem.txt").split())
        again.destroy(force=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore", IsolationWarning)
    main()
