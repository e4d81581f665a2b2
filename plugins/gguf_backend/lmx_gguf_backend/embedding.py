"""The engine of models that turn texts into vectors."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Seq

import numpy as np
from attrs import define
from numpy.typing import NDArray

from lmx_gguf_backend.encoder import Encoder
from lmx_gguf_backend.footprint import ENCODER_ROWS, ENCODER_SLOTS
from lmx_gguf_backend.library import Model, has_gpu
from lmx_kernel.engine import EngineStats, Sequence, Step, Tokenizer
from lmx_kernel.errors import ContextOverflowError, EngineFailedError, InvalidRequestError
from lmx_kernel.types import EngineLimits


@define(eq=False)
class EmbeddingEngine:
    """Embeds and does nothing else; see :class:`lmx_kernel.engine.Engine` and ``LongSteps``."""

    tokenizer: Tokenizer
    limits: EngineLimits
    _model: Model
    _encoder: Encoder

    def embed(self, inputs: Seq[Seq[int]]) -> list[list[float]]:
        """Return a vector of length 1 for each text.

        :raises InvalidRequestError: a text is empty, or has a token outside the vocabulary.
        :raises ContextOverflowError: a text is longer than the context.
        :raises EngineFailedError: it could not be computed, or its numbers are not finite.
        """
        for tokens in inputs:
            self._check(tokens)
        return [vector for texts in _batches(inputs) for vector in self._encode(texts).tolist()]

    def add(self, sequence: Sequence) -> None:
        """Refuse.

        :raises InvalidRequestError: always.
        """
        raise InvalidRequestError("this model makes embeddings only; it does not answer")

    def step(self) -> Step:
        """Do nothing: there is never a sequence."""
        return Step()

    def remove(self, sequence_id: int) -> None:
        """Do nothing."""

    def pulse(self) -> int | None:
        """Return a number that changes while nodes are computed; None where a GPU may do that, of
        which the library does not tell.
        """
        return None if has_gpu() else self._encoder.pulse.read()

    def trim(self) -> None:
        """Do nothing: no memory serves later requests."""

    def stats(self) -> EngineStats:
        """Return current figures."""
        return EngineStats(cache_tokens_used=0)

    def close(self) -> None:
        """Free the context and the weights, in this order."""
        self._encoder.close()
        self._model.close()

    def _check(self, tokens: Seq[int]) -> None:
        if not tokens:
            raise InvalidRequestError("there is nothing to embed in an empty text")
        if len(tokens) > self.limits.context_length:
            raise ContextOverflowError(
                f"{len(tokens)} tokens do not fit a context of {self.limits.context_length}"
            )
        if min(tokens) < 0 or max(tokens) >= self._encoder.vocabulary:
            raise InvalidRequestError("a token id lies outside the vocabulary")

    def _encode(self, texts: Seq[Seq[int]]) -> NDArray[np.float32]:
        found = self._encoder.encode(texts)
        if isinstance(found, int):
            raise EngineFailedError(f"llama.cpp could not compute it (code {found})")
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        if not (np.isfinite(lengths).all() and lengths.all()):
            raise EngineFailedError("the model computed numbers that are not finite")
        return found / lengths


def _batches(inputs: Seq[Seq[int]]) -> Iterator[list[Seq[int]]]:
    """Yield ``inputs`` in order, as many together as are computed at once."""
    batch: list[Seq[int]] = []
    rows = 0
    for tokens in inputs:
        rows += len(tokens)
        if batch and (rows > ENCODER_ROWS or len(batch) == ENCODER_SLOTS):
            yield batch
            batch, rows = [], len(tokens)
        batch.append(tokens)
    if batch:
        yield batch
