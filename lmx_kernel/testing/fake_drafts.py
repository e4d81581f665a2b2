"""The draft model of the fake backend."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import Any, ClassVar

from lmx_kernel.engine.draft_rows import DraftPiece
from lmx_kernel.types import LoadOptions


class CountingRows:
    """Counts on from the last number of a slot; checks that it is told of all tokens.

    :param first: the token of the number 0; the numbers go on to the end of the vocabulary.
    """

    steps_s: ClassVar[dict[int, float]] = {1: 1e-6}

    def __init__(self, options: LoadOptions, token_bytes: Seq[bytes], first: int) -> None:
        self.token_bytes = token_bytes
        self.slots = options.parallel
        self.context_length = options.context_length
        self.cache_tokens = options.cache_tokens
        self._first = first
        self._tokens: list[list[int]] = [[] for _ in range(self.slots)]

    def compute(self, pieces: Seq[DraftPiece]) -> list[Any]:
        for piece in pieces:
            held = self._tokens[piece.slot]
            assert len(held) == piece.position
            held += piece.tokens
        return [self._logits(self._tokens[piece.slot][-1]) for piece in pieces if piece.is_drawn]

    def cut(self, slot: int, length: int) -> bool:
        del self._tokens[slot][length:]
        return True

    def close(self) -> None:
        self._tokens.clear()

    def _logits(self, last: int) -> Any:
        import numpy as np  # noqa: PLC0415 - few tests need it

        row = np.zeros(len(self.token_bytes), np.float32)
        row[self._first + (last - self._first + 1) % (len(row) - self._first)] = 100
        return row
