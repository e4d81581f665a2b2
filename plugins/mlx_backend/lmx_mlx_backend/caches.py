"""mlx-lm's caches, one for each layer: of one sequence, or of several in a batch.

A cache of one sequence has no padding and needs no mask for a single row; caches of several are
merged into one that is padded on the left to the longest. mlx-lm has both forms of each kind
(plain, rotating, recurrent, lists of them), so this only says what is done with all layers.
"""

from __future__ import annotations

import copy as copies
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import KVCache, can_trim_prompt_cache, make_prompt_cache, trim_prompt_cache

Cache = list[Any]


def new(model: Any) -> Cache:
    """Return an empty cache of one sequence."""
    return make_prompt_cache(model)


def copy(cache: Cache) -> Cache:
    """Return a copy; the arrays are shared until one of the two is written to."""
    return copies.deepcopy(cache)


def merge(caches: list[Cache]) -> Cache:
    """Return one batch of the caches of several sequences."""
    return [layers[0].merge(list(layers)) for layers in zip(*caches, strict=True)]


def extend(batch: Cache, other: Cache) -> None:
    """Add the sequences of another batch to ``batch``."""
    for mine, theirs in zip(batch, other, strict=True):
        mine.extend(theirs)


def select(batch: Cache, rows: list[int]) -> None:
    """Keep only these sequences of a batch."""
    for layer in batch:
        layer.filter(rows)


def extract(batch: Cache, row: int) -> Cache:
    """Return the cache of one sequence of a batch."""
    return [layer.extract(row) for layer in batch]


def can_trim(cache: Cache) -> bool:
    """Return whether the end can be taken off: not of recurrent layers, nor of a full window."""
    return can_trim_prompt_cache(cache)


def trim(cache: Cache, tokens: int) -> None:
    """Take ``tokens`` off the end; the room they took stays."""
    trim_prompt_cache(cache, tokens)


def can_draft(cache: Cache) -> bool:
    """Return whether rows of a batch can take a different number of tokens off their ends: plain
    caches. Those of a window forget what they would go back to.
    """
    return all(type(layer) is KVCache for layer in cache)


def cut(cache: Cache, surplus: list[int]) -> None:
    """Take so many tokens off the end of each sequence of a batch, or of the only one.

    Rows of a batch end together, so those that lose more move to the right.
    """
    common = min(surplus)
    if common:
        trim(cache, common)
    rest = [count - common for count in surplus]
    if any(rest):
        for layer in cache:
            layer.prepare(right_padding=rest)
            layer.finalize()


def compact(cache: Cache) -> Cache:
    """Return a copy without unused room, if mlx-lm can make one."""
    can_merge = all(hasattr(layer, "merge") for layer in cache)
    return extract(merge([cache]), 0) if can_merge else cache


def join(parts: list[Cache]) -> Cache:
    """Return one cache of plain ones, of consecutive tokens of a sequence, with room for more."""
    joined = copy(parts[0])
    for layer, *pieces in zip(joined, *parts, strict=True):
        layer.offset = sum(one.offset for one in pieces)
        layer.keys = _join([one.keys[..., : one.offset, :] for one in pieces])
        layer.values = _join([one.values[..., : one.offset, :] for one in pieces])
    mx.eval(arrays(joined))
    return joined


def _join(pieces: list[mx.array]) -> mx.array:
    *before, _, width = pieces[0].shape
    room = KVCache.step - sum(one.shape[2] for one in pieces) % KVCache.step
    return mx.concatenate([*pieces, mx.zeros((*before, room, width), pieces[0].dtype)], 2)


def packed(arrays: Iterable[mx.array]) -> memoryview:
    """Return the bytes of arrays, one after the other; the device is waited for once."""
    parts = [array.reshape(-1).view(mx.uint8) for array in arrays]
    return memoryview(np.asarray(mx.concatenate(parts)))


def size_bytes(cache: Cache) -> int:
    """Return what the arrays take."""
    return sum(layer.nbytes for layer in cache)


def arrays(cache: Cache) -> list[Any]:
    """Return what has to be computed for the cache to be complete."""
    return [layer.state for layer in cache]


@contextmanager
def padded(batch: Cache, lengths: list[int]) -> Iterator[None]:
    """Let the block compute rows of these lengths, padded on the right to the longest."""
    missing = [max(lengths) - length for length in lengths]
    if not any(missing):
        yield
        return
    for layer in batch:
        layer.prepare(lengths=lengths, right_padding=missing)
    yield
    for layer in batch:
        layer.finalize()


def settle(cache: Cache) -> None:
    """Start computing the cache, so that it holds on to nothing else."""
    mx.async_eval(arrays(cache))
