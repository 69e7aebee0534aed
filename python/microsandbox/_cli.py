"""The `msb` command: hands the command line to the native program."""

from __future__ import annotations

import signal
import sys


def main() -> int:
    """Runs `msb` with this process's arguments; the exit status."""
    from ._microsandbox import cli_main

    # The native program handles signals itself: Python's handler would only run once it has returned.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return cli_main(["msb", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
