"""A GGUF model that drafts for another one."""

from __future__ import annotations

import time
from collections.abc import Sequence as Seq

import numpy as np
from attrs import define
from numpy.typing import NDArray

from lmx_gguf_backend.context import Context, Outcome
from lmx_gguf_backend.library import Model
from lmx_gguf_backend.rows import Piece
from lmx_kernel.engine import DraftPiece

WARM_UP_ROWS = (1, 1, 2, 8, 64)  # the first time touches the weights
WARM_UP_S = 0.5
"""A measurement that would take longer is left out."""


@define(eq=False)
class GgufDraftRows:
    """Computes drafts in a context of their own; see :class:`lmx_kernel.engine.DraftRows`."""

    token_bytes: Seq[bytes]
    slots: int
    context_length: int
    cache_tokens: int
    steps_s: dict[int, float]
    _model: Model
    _context: Context

    def compute(self, pieces: Seq[DraftPiece]) -> list[NDArray[np.float32]] | None:
        """Compute pieces of slots, and return the logits of those that are drawn."""
        logits: list[NDArray[np.float32]] = []
        for batch in _batches(pieces, self._context.rows):
            if self._context.compute(batch) != Outcome.DONE:
                return None
            count = sum(piece.outputs for piece in batch)
            if count:  # a copy: the next computation takes the place of these
                logits.extend(self._context.logits(count).copy())
        return logits

    def cut(self, slot: int, length: int) -> bool:
        """Forget a slot's tokens from ``length`` on."""
        return self._context.drop(slot, length)

    def close(self) -> None:
        """Free the cache and the weights, in this order."""
        self._context.close()
        self._model.close()


def _batches(pieces: Seq[DraftPiece], most_rows: int) -> list[list[Piece]]:
    """Return pieces in batches of as many rows as one computation may have."""
    batches: list[list[Piece]] = [[]]
    room = most_rows
    for one in pieces:
        if len(one.tokens) > room:
            batches.append([])
            room = most_rows
        batches[-1].append(Piece(one.slot, one.tokens, one.position, int(one.is_drawn)))
        room -= len(one.tokens)
    return batches


def measure_steps(context: Context) -> dict[int, float]:
    """Return what computing a few rows takes, in seconds; touches the weights."""
    times_s: dict[int, float] = {}
    for count in WARM_UP_ROWS:
        if count <= context.rows and times_s.get(1, 0.0) * count < WARM_UP_S:
            started_s = time.perf_counter()
            context.compute([Piece(0, [0] * count, 0, 1)])
            times_s[count] = time.perf_counter() - started_s
            context.drop(0)
    return times_s
