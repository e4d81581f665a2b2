"""Computing prompts: how they are cut into pieces, and which pieces are computed together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from lmx_mlx_backend import caches
from lmx_mlx_backend.caches import Cache
from lmx_mlx_backend.group import Row
from lmx_mlx_backend.groups import padding

TAIL = 32
"""Rows of a prompt's last piece: logits are computed for all rows of a call, and one is needed."""

LAST_ROWS = 128
"""Rows of the last pieces of several prompts, since there is memory for so many logits."""


def plan_piece(pending: int, limit: int) -> int:
    """Return how many of a prompt's ``pending`` rows to compute now.

    All but the last few rows are computed apart from these, whose logits are computed too.
    """
    return pending if pending <= 2 * TAIL else min(pending - TAIL, limit)


def plan_last_pieces(rows: Sequence[Row], cells_limit: int) -> list[list[Row]]:
    """Return which prompts to complete together: those of about the same length.

    A call costs about as much as ``TAIL`` rows beside what its rows cost, so that much padding is
    worth it. Recurrent layers would take padding for text, and are computed alone.

    :param cells_limit: padding of one batch in the cache.
    """
    batches: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: row.pending):
        together = [*batches[-1], row] if batches else [row]
        fits = (
            all(caches.can_trim(one.cache) for one in together)
            and len(together) * row.pending <= LAST_ROWS
            and padding([one.pending for one in together]) <= TAIL
            and padding([len(one.tokens) for one in together]) <= cells_limit
        )
        if batches and fits:
            batches[-1] = together
        else:
            batches.append([row])
    return batches


def compute_piece(module: Any, row: Row, count: int) -> None:
    """Compute the next ``count`` tokens of a prompt, the last ones not among them."""
    tokens = mx.array([row.tokens[row.done : row.done + count]])
    module(tokens, cache=row.cache)
    mx.eval(caches.arrays(row.cache))
    row.done += count


def compute_last_pieces(module: Any, rows: Sequence[Row]) -> tuple[Cache, mx.array]:
    """Compute what is left of prompts; return their cache and the logits after each."""
    pieces = [row.tokens[row.done :] for row in rows]
    lengths = [len(piece) for piece in pieces]
    tokens = [piece + [0] * (max(lengths) - len(piece)) for piece in pieces]
    cache = rows[0].cache if len(rows) == 1 else caches.merge([row.cache for row in rows])
    with caches.padded(cache, lengths):
        logits = module(mx.array(tokens), cache=cache)
    logits = logits[mx.arange(len(rows)), mx.array(lengths) - 1]
    mx.eval(caches.arrays(cache), logits)
    return cache, logits
