"""Keeps what runs at the front of the cache.

A step reads the cache up to the last cell in use. On SmolLM2-135M 6,700 idle cells made a step of
one stream 25 % longer, and it stayed so after they were given back, since the stream lay behind
them; to move it took 2.6 ms. The library does not tell which cells are in use. It fills the first
free ones, so the last one is estimated by the most cells that were in use at once.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define

from lmx_gguf_backend.context import Context

SPARSE, LEAST_CELLS = 2, 512
"""What runs is moved where steps read more cells than so many times those in use, and these."""

MOST_COPIES = 1.25
"""Sequences that share cells have their own after a move: no more may be needed than so many times
those in use."""

PIECE_TOKENS = 64
"""Are moved at once, so that little is held twice."""

EVERY_ROWS = 64
"""It is looked at after so many rows."""


@define(eq=False)
class Compaction:
    """Moves sequences when the cache is nearly empty in front of them."""

    _context: Context
    _last: int = 0
    _looked: int = 0

    def note(self, used: int) -> None:
        """Take in how many cells are in use."""
        self._last = max(self._last, used)

    def is_due(self, rows: int) -> bool:
        """Return whether it is time to look; ``rows`` is the engine's clock of computed rows."""
        if rows - self._looked < EVERY_ROWS:
            return False
        self._looked = rows
        return True

    def is_sparse(self, used: int) -> bool:
        """Return whether steps read much more than the cells that are in use."""
        return self._last > SPARSE * used + LEAST_CELLS

    def move(self, held: Sequence[tuple[int, int]], used: int) -> list[int]:
        """Move sequences to the first free cells.

        :param held: the slots and their numbers of tokens.
        :param used: cells that they take.
        :returns: slots that were lost; the library had room for them a moment ago.
        """
        total = sum(length for _, length in held)
        if total > MOST_COPIES * used:
            return []
        self._last = total
        return [slot for slot, length in held if not self._move(slot, length)]

    def _move(self, slot: int, length: int) -> bool:
        """Move piece by piece."""
        for start in range(0, length, PIECE_TOKENS):
            end = min(start + PIECE_TOKENS, length)
            state = self._context.export(slot, start, end)
            self._context.drop(slot, start, end)
            if not self._context.insert(slot, state, start, end):
                return False
        return True
