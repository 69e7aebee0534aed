"""A wheel for users has no failpoints: with them, whoever sets its environment kills the product at a step.

Usage: check_wheel.py WHEEL
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

# The variable that selects the step: its name is in the extension module only where the code that reads it is.
FAILPOINT = b"MSB_FAILPOINT"


def failpoints(wheel: Path) -> list[str]:
    """The members of the wheel that a variable can make fail."""
    with zipfile.ZipFile(wheel) as archive:
        return [name for name in archive.namelist() if name.endswith(".so") and FAILPOINT in archive.read(name)]


if __name__ == "__main__":
    found = failpoints(Path(sys.argv[1]))
    sys.exit(f"error: failpoints in {', '.join(found)} of {sys.argv[1]}" if found else 0)
