"""How fast states come back from disk, by which it is decided whether computing is quicker."""

from __future__ import annotations

import time
from collections.abc import Callable

from attrs import define

FIRST_BYTES_S = 500e6
"""Assumed until something was read."""

SAMPLE_BYTES = 4 << 20
"""Read when a model was loaded, to measure it."""

LEAST_BYTES = SAMPLE_BYTES // 16
"""Less tells nothing of the rate: what it takes is mostly that another thread ran meanwhile."""

DOUBT = 1.1
"""A rate that was low may have been so by chance, and nothing more is read at a low rate. So each
time that nothing is read for it, the rate counts as so many times higher.
"""


@define
class ReadRate:
    """Bytes that are read and taken over in a second; what was seen last counts most."""

    bytes_s: float = FIRST_BYTES_S
    _is_measured: bool = False

    def measure(self, read: Callable[[int], int]) -> None:
        """Measure it.

        :param read: reads at least so many bytes of what is stored, if there are as many, and
            returns how many it read.
        """
        began_s = time.perf_counter()
        if (size_bytes := read(SAMPLE_BYTES)) >= LEAST_BYTES:
            self.observe(size_bytes, time.perf_counter() - began_s)

    def observe(self, size_bytes: int, took_s: float) -> None:
        """Note what reading and taking over so much took."""
        seen = size_bytes / max(took_s, 1e-6)
        self.bytes_s = (self.bytes_s + seen) / 2 if self._is_measured else seen
        self._is_measured = True

    def is_worth(self, size_bytes: int, computing_s: float) -> bool:
        """Return whether reading so much is quicker than ``computing_s``."""
        if size_bytes / self.bytes_s < computing_s:
            return True
        self.bytes_s *= DOUBT
        return False
