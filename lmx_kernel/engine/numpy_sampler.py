"""A sampler in numpy: chooses the next token of one sequence from a row of logits.

For engines that compute with numpy or can hand out their logits as numpy arrays. See
:mod:`~lmx_kernel.engine.sampling` for what every sampler does. Needs the extra
``lmx-kernel[engine]``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from attrs import define, field
from numpy.typing import NDArray

from lmx_kernel.engine.protocol import TokenLogprobs
from lmx_kernel.engine.sampling import COLD, MOST_BIAS, PROMPT_TAIL, has_penalties, uniform
from lmx_kernel.types import Sampling

Logits = NDArray[np.float32]
Indices = NDArray[np.intp]

MOST_BLOCKS = 64
NOTHING = 30.0
"""A logit this far below the highest adds less to the sum of all than its last bit."""

NUCLEUS_GUESS = 1024
"""A nucleus nearly always lies within this many tokens; a larger one costs a full sort."""


@define
class Sampler:
    """The sampling of one sequence.

    :param sampling: checked by :func:`~lmx_kernel.engine.sampling.check_sampling`.
    :param vocabulary: number of tokens.
    :param produced: tokens of the answer so far.
    """

    sampling: Sampling
    vocabulary: int
    produced: int = 0
    _counts: NDArray[np.float32] | None = field(default=None, init=False)
    _bias: tuple[Indices, Logits] | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        bias = self.sampling.logit_bias
        if bias:
            values = np.fromiter(bias.values(), np.float32).clip(-MOST_BIAS, MOST_BIAS)
            self._bias = np.fromiter(bias.keys(), np.intp), values
        if has_penalties(self.sampling):
            self._counts = np.zeros(self.vocabulary, np.float32)

    def read(self, tokens: Sequence[int]) -> None:
        """Count what comes before the next token: the prompt, then ``produced`` answer tokens."""
        if self._counts is not None:
            np.add.at(self._counts, tokens[-(self.produced + PROMPT_TAIL) :], 1)

    def choose(self, logits: Logits, allowed: NDArray[np.bool_] | None = None) -> int:
        """Return the next token. Writes into ``logits``.

        :param allowed: whether each token may be chosen, at least one; None for all.
        """
        self._adjust(logits)
        if allowed is None:
            token = self._pick(logits)
        elif 2 * np.count_nonzero(allowed) < len(allowed):
            tokens = np.flatnonzero(allowed)
            token = int(tokens[self._pick(logits[tokens])])
        else:
            np.copyto(logits, -np.inf, where=~allowed)
            token = self._pick(logits)
        self.note((token,))
        return token

    def note(self, tokens: Sequence[int]) -> None:
        """Count tokens that the answer continued with."""
        self.produced += len(tokens)
        if self._counts is not None:
            np.add.at(self._counts, np.asarray(tokens, np.intp), 1)

    def _adjust(self, logits: Logits) -> None:
        if self._bias is not None:
            logits[self._bias[0]] += self._bias[1]
        if self._counts is not None:
            self._penalise(logits, self._counts)

    def _penalise(self, logits: Logits, counts: NDArray[np.float32]) -> None:
        sampling = self.sampling
        seen = np.flatnonzero(counts > 0)  # of booleans: 20 times faster
        values = logits[seen]
        factor = np.float32(sampling.repetition_penalty)
        values = np.where(values > 0, values / factor, values * factor)
        values -= np.float32(sampling.presence_penalty)
        logits[seen] = values - np.float32(sampling.frequency_penalty) * counts[seen]

    def _pick(self, logits: Logits) -> int:
        sampling = self.sampling
        if sampling.temperature < COLD or sampling.top_k == 1:
            return int(logits.argmax())
        tokens = self._candidates(logits)
        sums = _weights(logits[tokens], sampling.temperature).cumsum(dtype=np.float64)
        draw = uniform(sampling.seed or 0, self.produced) * sums[-1]
        return int(tokens[min(sums.searchsorted(draw, side="right"), len(tokens) - 1)])

    def _candidates(self, logits: Logits) -> Indices:
        """Return the tokens that may be drawn."""
        sampling = self.sampling
        if 0 < sampling.top_k < len(logits):
            tokens = top(logits, sampling.top_k)
            return _cut(logits, tokens, _weights(logits[tokens]).sum(), sampling)
        if sampling.top_p < 1:
            total = _weights(logits).sum()
            return _cut(logits, _nucleus(logits, total, sampling.top_p), total, sampling)
        highest = logits.max()
        floor = max(_floor(highest, sampling.min_p), highest - NOTHING * sampling.temperature)
        return np.flatnonzero(logits >= floor)


def mask_words(vocabulary: int, rows: int = 1) -> NDArray[np.int32]:
    """Return buffers for :meth:`TokenMask.fill <lmx_kernel.engine.TokenMask.fill>`, one a row."""
    return np.zeros((rows, -(-vocabulary // 32)), np.int32)


def read_masks(words: NDArray[np.int32], vocabulary: int) -> NDArray[np.bool_]:
    """Return which tokens each row of filled buffers allows, of shape (rows, vocabulary)."""
    bits = np.unpackbits(words.view(np.uint8), axis=1, count=vocabulary, bitorder="little")
    return bits.view(np.bool_)


def logprobs(logits: Logits, token: int, alternatives: int) -> TokenLogprobs:
    """Return the log-probabilities of ``token`` and of the likeliest tokens, from raw logits."""
    highest = logits.max()
    total = float(highest) + math.log(float(np.exp(logits - highest).sum(dtype=np.float64)))
    best = top(logits, alternatives) if alternatives else ()
    return TokenLogprobs(
        float(logits[token]) - total,
        tuple((int(other), float(logits[other]) - total) for other in best),
    )


def top(logits: Logits, count: int) -> Indices:
    """Return exactly the ``count`` likeliest tokens, likeliest first.

    The count-th highest of the maxima of disjoint blocks bounds the count-th highest logit from
    below, and few tokens lie above it: far less work than partitioning the row.
    """
    count = min(count, len(logits))
    blocks = min(MOST_BLOCKS, len(logits) // (4 * count))
    if blocks < 2:
        return np.argsort(-logits)[:count]
    width = len(logits) // blocks
    maxima = logits[: width * blocks].reshape(blocks, width).max(axis=0)
    bound = np.partition(maxima, width - count)[width - count]
    tokens = np.flatnonzero(logits >= bound)
    return tokens[np.argsort(-logits[tokens], kind="stable")[:count]]


def _nucleus(logits: Logits, total: np.float32, share: float) -> Indices:
    """Return enough of the likeliest tokens to make up ``share`` of ``total``."""
    tokens = top(logits, NUCLEUS_GUESS)
    is_enough = _weights(logits[tokens]).sum() >= share * total
    return tokens if is_enough else top(logits, len(logits))


def _cut(logits: Logits, tokens: Indices, total: np.float32, sampling: Sampling) -> Indices:
    """Cut likeliest-first ``tokens`` by top-p and min-p; at least one stays."""
    values = logits[tokens]
    keep = int(np.count_nonzero(values >= _floor(values[0], sampling.min_p)))
    if sampling.top_p < 1:
        sums = _weights(values).cumsum()
        keep = min(keep, int(sums.searchsorted(sampling.top_p * total)) + 1)
    return tokens[: max(keep, 1)]


def _weights(values: Logits, temperature: float = 1.0) -> Logits:
    """Return probabilities but for a factor: the likeliest has 1."""
    weights: Logits = np.exp((values - values.max()) / np.float32(temperature))
    return weights


def _floor(highest: np.float32, min_p: float) -> float:
    """Return the lowest logit that ``min_p`` lets pass."""
    return float(highest) + math.log(min(min_p, 1)) if min_p > 0 else -math.inf
