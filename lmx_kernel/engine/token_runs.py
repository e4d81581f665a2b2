"""Comparing runs of tokens."""

from __future__ import annotations

from collections.abc import Sequence as Seq

BLOCK = 256


def common(a: Seq[int], b: Seq[int]) -> int:
    """Return how many tokens ``a`` and ``b`` share from the start.

    Compares slices of a block: many times faster than one by one.
    """
    limit = min(len(a), len(b))
    for start in range(0, limit, BLOCK):
        if a[start : start + BLOCK] != b[start : start + BLOCK]:
            block = range(start, min(start + BLOCK, limit))
            return next((i for i in block if a[i] != b[i]), limit)
    return limit
