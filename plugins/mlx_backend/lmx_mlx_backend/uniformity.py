"""Whether a sequence's numbers are the same beside others, tried out on this machine."""

from __future__ import annotations

from collections.abc import Iterator

import mlx.core as mx
import numpy as np

from lmx_mlx_backend.cells import PIECE, Cells

LENGTHS = (9, 250, 600, 1500)
"""Of sequences: shorter and longer than what a matrix library takes at once of a sum."""

STEADY = 2048
"""Every possible number of cells up to this is tried, and some of those above."""


def is_uniform(cells: Cells, vocabulary: int, context_length: int) -> bool:
    """Return whether a sequence has the same logits, bit for bit, alone and beside others, as long
    as they may be; lets batches be whole if they must. It takes as long as a prompt of a few
    hundred tokens.
    """
    if _has_equal_rows(cells, vocabulary):
        return _attend_uniformly(cells, context_length)
    cells.is_whole = True
    return _has_equal_rows(cells, vocabulary) and _attend_uniformly(cells, context_length)


def _has_equal_rows(cells: Cells, vocabulary: int) -> bool:
    """Return whether a sequence has the same logits alone in the first slot and beside longer ones
    in one of the middle and in the last.
    """
    tokens = [place * 7919 % vocabulary for place in range(PIECE + 9)]
    alone = _logits(cells, 0, tokens, [0] * cells.slots)
    lengths = [0] * cells.slots
    for slot in range(min(2, cells.slots - 1)):
        lengths[slot] = (2 + slot) * PIECE
        for start in range(0, lengths[slot], PIECE):
            cells.compute_piece(slot, start, tokens[slot : slot + PIECE])
    others = {cells.slots // 2, cells.slots - 1} - {0}
    return all(
        np.array_equal(alone, _logits(cells, slot, tokens, lengths)) for slot in sorted(others)
    )


def _attend_uniformly(cells: Cells, context_length: int) -> bool:
    if cells.slots == 1:
        return True
    widths = {(layer.keys.shape[-1], layer.values.shape[-1]) for layer in cells.layers}
    return all(attends_uniformly(key_width, width, context_length) for key_width, width in widths)


def attends_uniformly(key_width: int, width: int, context_length: int) -> bool:
    """Return whether a row's attention, with keys and values of these widths, has the same numbers,
    bit for bit, however many cells there are behind its last. Scores are compared by themselves
    too, since a last bit of one among thousands seldom shows in what is attended to.

    :param context_length: the most cells.
    """
    most = -(-context_length // PIECE) * PIECE
    random = iter(mx.random.split(mx.random.key(0), 3))
    query = mx.random.normal((1, 1, 1, key_width), key=next(random))
    keys = mx.random.normal((1, 1, most, key_width), key=next(random))
    values = mx.random.normal((1, 1, most, width), key=next(random))

    def attend(length: int, seen: int) -> np.ndarray:
        mask = mx.arange(seen).reshape(1, 1, 1, -1) < length
        return np.array(
            mx.fast.scaled_dot_product_attention(
                query, keys[:, :, :seen], values[:, :, :seen], scale=key_width**-0.5, mask=mask
            )
        )

    def score(seen: int) -> np.ndarray:
        return np.array(query @ keys[:, :, :seen].swapaxes(-1, -2))

    scores = score(most)
    if not all(np.array_equal(score(seen), scores[..., :seen]) for seen in _counts(PIECE, most)):
        return False
    for length in (length for length in LENGTHS if length < most):
        least = -(-length // PIECE) * PIECE
        expected = attend(length, least)
        if not all(np.array_equal(attend(length, seen), expected) for seen in _counts(least, most)):
            return False
    return True


def _counts(seen: int, most: int) -> Iterator[int]:
    """Yield numbers of cells as batches have them, up to the last one."""
    while seen < most:
        yield seen
        seen += PIECE if seen < STEADY else seen // 2 // PIECE * PIECE
    yield most


def _logits(cells: Cells, slot: int, tokens: list[int], lengths: list[int]) -> np.ndarray:
    """Compute all but three tokens as a prompt, and these as an answer; return the logits."""
    end = len(tokens) - 3
    for start in range(0, end, PIECE):
        logits = cells.compute_piece(slot, start, tokens[start : min(start + PIECE, end)])
    found = [logits[(end - 1) % PIECE]]
    for place in range(end, len(tokens)):
        lengths[slot] = place
        found.append(cells.compute_batch({slot: (tokens[place], place)}, lengths)[slot])
    return np.array(mx.stack(found))
