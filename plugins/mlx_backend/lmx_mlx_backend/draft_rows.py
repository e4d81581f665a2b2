"""An MLX model that drafts for another one."""

from __future__ import annotations

from collections.abc import Sequence as Seq

import mlx.core as mx
import numpy as np
from attrs import define, field
from numpy.typing import NDArray

from lmx_kernel.engine import DraftPiece
from lmx_mlx_backend import caches
from lmx_mlx_backend.caches import Cache
from lmx_mlx_backend.model import COMPUTE_ERRORS, Model

MOST_SHIFTS = 16
"""Steps with pieces of unequal length, before the padding that all rows have is taken off."""


@define(eq=False)
class MlxDraftRows:
    """Computes drafts; see :class:`lmx_kernel.engine.DraftRows`. Slots that were computed together
    stay in one batch until others are.

    :ivar _computed: tokens in the cache of each slot.
    :ivar _kept: how many of these count; the others are cut off before the next computation.
    """

    token_bytes: Seq[bytes]
    slots: int
    context_length: int
    cache_tokens: int
    steps_s: dict[int, float]
    _model: Model
    _alone: dict[int, Cache] = field(factory=dict, init=False)
    _together: list[int] = field(factory=list, init=False)
    _batch: Cache = field(factory=list, init=False)
    _computed: dict[int, int] = field(factory=dict, init=False)
    _kept: dict[int, int] = field(factory=dict, init=False)
    _shifts: int = field(default=0, init=False)

    def compute(self, pieces: Seq[DraftPiece]) -> list[NDArray[np.float32]] | None:
        """Compute pieces of slots, and return the logits of those that are drawn."""
        try:
            return self._compute(pieces)
        except COMPUTE_ERRORS:
            self._clear()
            return None

    def cut(self, slot: int, length: int) -> bool:
        """Forget a slot's tokens from ``length`` on."""
        if length:
            self._kept[slot] = length
            return True
        if slot in self._together:
            self._split()
        for held in (self._alone, self._computed, self._kept):
            held.pop(slot, None)  # type: ignore[attr-defined]
        return True

    def close(self) -> None:
        """Free caches and weights."""
        self._clear()
        self._model.close()

    def _compute(self, pieces: Seq[DraftPiece]) -> list[NDArray[np.float32]]:
        cache = self._cache_of([piece.slot for piece in pieces])
        lengths = [len(piece.tokens) for piece in pieces]
        width = max(lengths)
        tokens = [[*piece.tokens, *[0] * (width - len(piece.tokens))] for piece in pieces]
        with caches.padded(cache, lengths):
            logits = self._model.module(mx.array(tokens), cache=cache)
        self._pack(len(set(lengths)) > 1)
        for piece in pieces:
            self._computed[piece.slot] = piece.position + len(piece.tokens)
            self._kept[piece.slot] = self._computed[piece.slot]
        drawn = [place for place, piece in enumerate(pieces) if piece.is_drawn]
        if not drawn:  # without the logits, which are left out of what is computed
            mx.eval(caches.arrays(cache))
            return []
        ends = mx.array([lengths[place] - 1 for place in drawn])
        last = logits[mx.array(drawn), ends].astype(mx.float32)
        mx.eval(caches.arrays(cache), last)
        return list(np.array(last))

    def _cache_of(self, slots: list[int]) -> Cache:
        """Return the cache of some slots, which holds what counts of them."""
        if len(slots) > 1 and slots == self._together:
            surplus = [self._surplus(slot) for slot in slots]
            caches.cut(self._batch, surplus)
            self._pack(len(set(surplus)) > 1)
            return self._batch
        if set(slots) & set(self._together):
            self._split()
        own = [self._alone.setdefault(slot, caches.new(self._model.module)) for slot in slots]
        for slot, cache in zip(slots, own, strict=True):
            if surplus := self._surplus(slot):
                caches.trim(cache, surplus)
        if len(slots) == 1:
            return own[0]
        self._split()
        self._batch, self._together, self._shifts = caches.merge(own), slots, 0
        for slot in slots:
            del self._alone[slot]
        return self._batch

    def _surplus(self, slot: int) -> int:
        """Return how many tokens of a slot do not count any more; the caller cuts them off."""
        computed = self._computed.get(slot, 0)
        self._computed[slot] = self._kept.get(slot, computed)
        return computed - self._computed[slot]

    def _pack(self, is_shifted: bool) -> None:
        """Take off the padding that all rows of the batch have by now, every so many steps."""
        self._shifts += is_shifted
        if self._shifts >= MOST_SHIFTS:
            self._shifts = 0
            caches.select(self._batch, list(range(len(self._together))))

    def _split(self) -> None:
        """Give each slot of the batch a cache of its own again."""
        for place, slot in enumerate(self._together):
            self._alone[slot] = caches.extract(self._batch, place)
        self._together, self._batch = [], []

    def _clear(self) -> None:
        self._together, self._batch = [], []
        self._alone.clear()
        self._computed.clear()
        self._kept.clear()
