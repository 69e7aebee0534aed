"""The `msb` command: hands the command line to the native program."""

from __future__ import annotations

import os
import signal
import sys

STANDARD_STREAMS = 3


def main() -> int:
    """Runs `msb` with this process's arguments; the exit status."""
    fill_standard_streams()
    from ._microsandbox import cli_main

    # The native program handles signals itself: Python's handler would only run once it has returned.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return cli_main(["msb", *sys.argv[1:]])


def fill_standard_streams() -> None:
    """A standard stream that the caller closed becomes `/dev/null`: the next descriptor that is opened, a connection to
    a sandbox for example, would get its number and with it the output of programs."""
    while (number := os.open(os.devnull, os.O_RDWR)) < STANDARD_STREAMS:
        os.set_inheritable(number, True)
    os.close(number)


if __name__ == "__main__":
    sys.exit(main())
