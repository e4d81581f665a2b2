"""Whether sequences of a model may share a batch: asked by each load, and by architecture tests."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from lmx_mlx_backend import caches
from lmx_mlx_backend.caches import Cache

NEAR = {mx.float32: 0.01, mx.float16: 0.05, mx.bfloat16: 0.1}
"""Logits that differ by less than this share of their range are the same, where the least precise
weights are of this type. Tiny models of all families compute the very same on a CPU in each type;
what is wrong differs by 0.24 and more."""


def check_batch(module: Any, lengths: tuple[int, int, int] = (1, 3, 2)) -> None:
    """Merge the caches of several sequences, continue, and separate them again; and compute ends of
    prompts of unequal length together, as is done where no layer would take padding for text.

    :param lengths: of the three sequences, all different.
    :raises ValueError: a row computes something else than alone.
    """
    first, second, third = lengths
    batch = caches.merge([prompted(module, first), prompted(module, second)])
    caches.extend(batch, caches.merge([prompted(module, third)]))
    _compare(module, batch, {length: [0] for length in lengths})
    caches.select(batch, [0, 2])
    mx.eval(caches.arrays(batch), caches.arrays(caches.extract(batch, 1)))
    rows = [prompted(module, first), prompted(module, second)]
    if all(map(caches.can_trim, rows)):
        _compare(module, caches.merge(rows), {first: [0, 1], second: [0]})


def prompted(module: Any, count: int) -> Cache:
    """Return a cache that holds a prompt of ``count`` tokens."""
    cache = caches.new(module)
    mx.eval(module(mx.array([list(range(count))]), cache=cache))
    return cache


def _compare(module: Any, batch: Cache, pieces: dict[int, list[int]]) -> None:
    """Compute the rows of ``batch`` together and alone.

    :param pieces: the next tokens of each row, by how many are in its cache.
    :raises ValueError: it is not the same.
    """
    lengths = [len(piece) for piece in pieces.values()]
    tokens = [piece + [0] * (max(lengths) - len(piece)) for piece in pieces.values()]
    with caches.padded(batch, lengths):
        together = module(mx.array(tokens), cache=batch).astype(mx.float32)
    near = max(NEAR.get(weight.dtype, 0.0) for _, weight in tree_flatten(module.parameters()))
    for found, (count, piece) in zip(together, pieces.items(), strict=True):
        alone = module(mx.array([piece]), cache=prompted(module, count))[0].astype(mx.float32)
        difference = mx.abs(found[: len(piece)] - alone).max()
        if not (difference / (alone.max() - alone.min() + 1e-6)).item() <= near:
            raise ValueError("a row in a batch is not what it is alone")
