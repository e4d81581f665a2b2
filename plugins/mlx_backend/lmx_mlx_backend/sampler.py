"""Choosing the next tokens of a batch, all rows at once.

Order, as in the GGUF backend: bias, penalties, top-k, top-p, min-p, temperature, draw. The draw for
the n-th token of an answer depends on the seed and on n alone, so a row's text does not depend on
its neighbours, and a sequence that was put out and comes back goes on as if undisturbed.

Rows fall into three kinds: the likeliest token; candidates, the 64 or 1,024 likeliest tokens, which
are all that top-k and top-p need but in very flat distributions; and the whole vocabulary, where
neither of them cuts. Only kinds that a batch has are computed, with parameters as columns: sorting
a row of 49,152 logits takes 5 ms on a CPU, finding its 64 likeliest 0.1 ms.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from hashlib import blake2b

import mlx.core as mx
import numpy as np
from attrs import frozen

from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.types import Sampling

FEW, MANY = 64, 1024
"""Candidates of a row: few where every such row has a top-k below."""

BLOCK = 64
"""Logits of one block in the search for the likeliest."""

MOST_BIAS = 1e6
"""More would only lead to infinities."""

COLD = 1e-5
"""Below this temperature the likeliest token is all that is left."""

PROMPT_TAIL = 64
"""Tokens of the prompt that penalties look at, beside the whole answer."""


@frozen(eq=False)
class Table:
    """The parameters of the rows of a batch, in columns of shape (rows, 1).

    :ivar width: candidates of each row; 0 if no row draws from some.
    :ivar is_drawn: rows that draw at all; None if none does.
    :ivar is_whole: rows that draw from the whole vocabulary; None if none does.
    :ivar bias: row numbers, token ids and what is added there; None if nothing is.
    :ivar penalties: repetition, presence and frequency; None if no row has any.
    """

    width: int
    temperature: mx.array
    top_k: mx.array
    top_p: mx.array
    log_min_p: mx.array
    has_nucleus: bool
    is_drawn: mx.array | None
    is_whole: mx.array | None
    bias: tuple[mx.array, mx.array, mx.array] | None
    penalties: tuple[mx.array, mx.array, mx.array] | None

    @classmethod
    def of(cls, rows: Sequence[Sampling]) -> Table:
        """Return the table of ``rows``."""
        drawn = [_is_drawn(row) for row in rows]
        whole = [_is_drawn(row) and not _has_candidates(row) for row in rows]
        picking = [row for row in rows if _is_drawn(row) and _has_candidates(row)]
        few = all(0 < row.top_k <= FEW for row in picking)
        return cls(
            width=(FEW if few else MANY) if picking else 0,
            temperature=_column([max(row.temperature, COLD) for row in rows]),
            top_k=_column([row.top_k or MANY for row in rows]),
            top_p=_column([row.top_p if row.top_p < 1 else 2.0 for row in rows]),
            log_min_p=_column([_log(row.min_p) for row in rows]),
            has_nucleus=any(row.top_p < 1 for row in picking),
            is_drawn=mx.array(drawn) if any(drawn) else None,
            is_whole=mx.array(whole) if any(whole) else None,
            bias=_bias(rows),
            penalties=_penalties(rows),
        )


def check_sampling(sampling: Sampling, vocabulary: int) -> None:
    """Refuse numbers that would make every logit meaningless.

    :raises InvalidRequestError: out of range, not finite, or an unknown token.
    """
    numbers = (
        sampling.temperature, sampling.top_p, sampling.min_p, sampling.repetition_penalty,
        sampling.presence_penalty, sampling.frequency_penalty, *sampling.logit_bias.values(),
    )  # fmt: skip
    if not all(math.isfinite(number) for number in numbers):
        raise InvalidRequestError("sampling parameters must be finite numbers")
    if sampling.repetition_penalty <= 0:
        raise InvalidRequestError("repetition_penalty must be above 0")
    if not all(0 <= token < vocabulary for token in sampling.logit_bias):
        raise InvalidRequestError("logit_bias names a token outside the vocabulary")


def has_penalties(sampling: Sampling) -> bool:
    """Return whether what was said before matters."""
    return (
        sampling.repetition_penalty != 1
        or sampling.presence_penalty != 0
        or sampling.frequency_penalty != 0
    )


def count_tokens(tokens: Sequence[int], produced: int, vocabulary: int) -> mx.array:
    """Return how often each token counts for penalties, as a row of shape (1, vocabulary)."""
    tail = np.asarray(tokens[-(produced + PROMPT_TAIL) :], np.int64)
    return mx.array(np.bincount(tail, minlength=vocabulary)[None], mx.float32)


def choose(
    logits: mx.array, table: Table, draws: Sequence[float], counts: mx.array | None
) -> mx.array:
    """Return the next token of each row.

    :param logits: of shape (rows, vocabulary), float32.
    :param draws: a number in [0, 1) for each row.
    :param counts: how often each token was seen, shaped as ``logits``; None for no penalties.
    """
    logits = _adjust(logits, table, counts)
    tokens = mx.argmax(logits, axis=-1)
    if table.is_drawn is None:
        return tokens
    column = _column(draws)
    if table.width:
        tokens = mx.where(table.is_drawn, _from_candidates(logits, table, column), tokens)
    if table.is_whole is not None:
        tokens = mx.where(table.is_whole, _from_all(logits, table, column), tokens)
    return tokens


def logprobs(logits: mx.array, tokens: mx.array, count: int) -> tuple[mx.array, mx.array, mx.array]:
    """Return the log-probability of each row's token, and its ``count`` likeliest tokens.

    :returns: of shapes (rows,), (rows, count) and (rows, count): the token's, ids, theirs.
    """
    total = mx.logsumexp(logits, axis=-1, keepdims=True)
    chosen = mx.take_along_axis(logits, tokens[:, None], axis=-1) - total
    ids = top(logits, max(count, 1))
    return chosen[:, 0], ids, mx.take_along_axis(logits, ids, axis=-1) - total


def top(logits: mx.array, count: int) -> mx.array:
    """Return the ``count`` likeliest tokens of each row, likeliest first.

    They lie in the ``count`` blocks with the highest maxima: far less to partition than the row.
    """
    rows, size = logits.shape
    count = min(count, size)
    blocks = -(-size // BLOCK)
    if blocks < 4 * count:
        return _sorted(logits, mx.argpartition(-logits, count - 1, axis=-1)[:, :count])
    padding = blocks * BLOCK - size
    padded = mx.pad(logits, [(0, 0), (0, padding)], constant_values=-math.inf)
    # a block is a column here, so that a maximum is taken over whole rows at a time
    maxima = padded.reshape(rows, BLOCK, blocks).max(axis=1)
    best = mx.argpartition(-maxima, count - 1, axis=-1)[:, :count]
    ids = (best[:, None, :] + mx.arange(BLOCK)[:, None] * blocks).reshape(rows, -1)
    values = mx.take_along_axis(padded, ids, axis=-1)
    places = mx.argpartition(-values, count - 1, axis=-1)[:, :count]
    return _sorted(logits, mx.take_along_axis(ids, places, axis=-1))


def uniform(seed: int, index: int) -> float:
    """Return the number in [0, 1) that belongs to a seed and a place in the answer.

    It has 24 bits, as many as a float32 can tell apart.
    """
    key = struct.pack("<QQ", seed & 0xFFFF_FFFF_FFFF_FFFF, index)
    return (int.from_bytes(blake2b(key, digest_size=8).digest(), "little") >> 40) / (1 << 24)


def _adjust(logits: mx.array, table: Table, counts: mx.array | None) -> mx.array:
    if table.bias is not None:
        rows, ids, values = table.bias
        logits = logits.at[rows, ids].add(values)
    if table.penalties is None or counts is None:
        return logits
    repetition, presence, frequency = table.penalties
    scaled = mx.where(logits > 0, logits / repetition, logits * repetition)
    return mx.where(counts > 0, scaled - presence - frequency * counts, logits)


def _from_candidates(logits: mx.array, table: Table, draws: mx.array) -> mx.array:
    ids = top(logits, table.width)
    values = mx.take_along_axis(logits, ids, axis=-1)
    values = values - values[:, :1]
    ranks = mx.arange(ids.shape[1])[None]
    is_kept = (ranks < table.top_k) & (values >= table.log_min_p)
    if table.has_nucleus:
        is_kept = is_kept & _is_nucleus(logits, values, ranks, table)
    sums = mx.cumsum(_weights(values, table, is_kept | (ranks == 0)), axis=-1)
    place = (sums <= draws * sums[:, -1:]).sum(axis=-1, keepdims=True)
    last = mx.maximum(is_kept.sum(axis=-1, keepdims=True), 1) - 1
    return mx.take_along_axis(ids, mx.minimum(place, last), axis=-1)[:, 0]


def _is_nucleus(logits: mx.array, values: mx.array, ranks: mx.array, table: Table) -> mx.array:
    """Return which candidates the likeliest tokens of probability top-p end at or before."""
    weights = mx.where(ranks < table.top_k, mx.exp(values), 0)
    total = weights.sum(axis=-1, keepdims=True)
    if table.width == MANY:
        highest = logits.max(axis=-1, keepdims=True)
        everything = mx.exp(logits - highest).sum(axis=-1, keepdims=True)
        total = mx.where(table.top_k < MANY, total, everything)
    return mx.cumsum(weights, axis=-1) - weights < table.top_p * total


def _from_all(logits: mx.array, table: Table, draws: mx.array) -> mx.array:
    values = logits - logits.max(axis=-1, keepdims=True)
    sums = mx.cumsum(_weights(values, table, values >= table.log_min_p), axis=-1)
    place = (sums <= draws * sums[:, -1:]).sum(axis=-1)
    return mx.minimum(place, logits.shape[-1] - 1)


def _weights(values: mx.array, table: Table, is_kept: mx.array) -> mx.array:
    """Return probabilities but for a factor, with temperature."""
    return mx.where(is_kept, mx.exp(values / table.temperature), 0)


def _sorted(logits: mx.array, ids: mx.array) -> mx.array:
    order = mx.argsort(-mx.take_along_axis(logits, ids, axis=-1), axis=-1)
    return mx.take_along_axis(ids, order, axis=-1)


def _is_drawn(sampling: Sampling) -> bool:
    return sampling.temperature >= COLD and sampling.top_k != 1


def _has_candidates(sampling: Sampling) -> bool:
    return sampling.top_k > 0 or sampling.top_p < 1


def _column(numbers: Sequence[float]) -> mx.array:
    return mx.array(np.asarray(numbers, np.float32)[:, None])


def _log(share: float) -> float:
    return math.log(min(share, 1)) if share > 0 else -math.inf


def _bias(rows: Sequence[Sampling]) -> tuple[mx.array, mx.array, mx.array] | None:
    entries = [(i, *item) for i, row in enumerate(rows) for item in row.logit_bias.items()]
    if not entries:
        return None
    numbers, ids, values = zip(*entries, strict=True)
    clipped = np.asarray(values, np.float32).clip(-MOST_BIAS, MOST_BIAS)
    return mx.array(numbers), mx.array(ids), mx.array(clipped)


def _penalties(rows: Sequence[Sampling]) -> tuple[mx.array, mx.array, mx.array] | None:
    if not any(map(has_penalties, rows)):
        return None
    return (
        _column([row.repetition_penalty for row in rows]),
        _column([row.presence_penalty for row in rows]),
        _column([row.frequency_penalty for row in rows]),
    )
