"""Amounts of memory and disk."""

from __future__ import annotations

from dataclasses import dataclass

#: Bytes of a mebibyte.
MiB = 1048576
#: Bytes of a gibibyte.
GiB = 1073741824


@dataclass(frozen=True)
class Size:
    """An amount of memory or disk.

    Example: `Size.gib(2).mib_count == 2048`.
    """

    bytes: int

    @classmethod
    def mib(cls, n: int) -> Size:
        """`n` mebibytes.

        Example: `assert Size.mib(2).bytes == 2 * MiB`
        """
        return cls(n * MiB)

    @classmethod
    def gib(cls, n: int) -> Size:
        """`n` gibibytes.

        Example: `assert Size.gib(1).mib_count == 1024`
        """
        return cls(n * GiB)

    @property
    def mib_count(self) -> int:
        """Whole mebibytes."""
        return self.bytes // MiB
