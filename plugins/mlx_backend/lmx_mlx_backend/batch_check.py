"""Whether sequences of a model may share a batch: asked by each load, and by architecture tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from attrs import define
from mlx.utils import tree_flatten

from lmx_mlx_backend import caches
from lmx_mlx_backend.caches import Cache

NEAR = {mx.float32: 0.01, mx.float16: 0.05, mx.bfloat16: 0.1}
"""Logits that differ by less than this share of their range are the same, where the least precise
weights are of this type. Tiny models of all families compute the very same on a CPU in each type;
what is wrong differs by 0.24 and more."""


def check_batch(module: Any, lengths: tuple[int, int, int] = (1, 3, 2)) -> None:
    """Merge the caches of several sequences, and compare each row with the same sequence alone
    after each thing that is done with a batch; and compute ends of prompts of unequal length
    together, as is done where no layer would take padding for text.

    :param lengths: of the three sequences, all different.
    :raises ValueError: a row computes something else than alone.
    """
    first, second, third = (prompt_of(length, row) for row, length in enumerate(lengths))
    rows = Rows.of(module, [first, second])
    rows.extend(Rows.of(module, [third]))
    rows.step([[0], [0], [0]])
    rows.select([0, 2])
    rows.step([[1], [2]])
    rows.take(1).step([[3]])
    if rows.can_pad:
        Rows.of(module, [first, second]).step([[0, 1], [0]])


def prompt_of(length: int, row: int = 0) -> list[int]:
    """Return a prompt that differs from row to row."""
    return [(3 * row + place) % 10 for place in range(length)]


def prompted(module: Any, prompt: Sequence[int]) -> Cache:
    """Return a cache that holds a prompt."""
    cache = caches.new(module)
    mx.eval(module(mx.array([list(prompt)]), cache=cache))
    return cache


@define
class Rows:
    """Sequences in one batch, and each of them alone.

    :ivar alone: a cache for each row that was never in a batch.
    """

    module: Any
    batch: Cache
    alone: list[Cache]

    @classmethod
    def of(cls, module: Any, prompts: Sequence[Sequence[int]]) -> Rows:
        """Return a batch of some prompts."""
        batch = caches.merge([prompted(module, prompt) for prompt in prompts])
        return cls(module, batch, [prompted(module, prompt) for prompt in prompts])

    @property
    def can_pad(self) -> bool:
        """Whether rows of unequal length may be computed together."""
        return all(map(caches.can_trim, self.alone))

    def extend(self, other: Rows) -> None:
        """Take in the rows of another batch."""
        caches.extend(self.batch, other.batch)
        self.alone += other.alone

    def select(self, rows: list[int]) -> None:
        """Keep only these rows."""
        caches.select(self.batch, rows)
        self.alone = [self.alone[row] for row in rows]

    def take(self, row: int) -> Rows:
        """Return one row as a batch of its own; it stays in this one."""
        cache = caches.extract(self.batch, row)
        mx.eval(caches.arrays(cache))
        return Rows(self.module, cache, [self.alone[row]])

    def step(self, pieces: list[list[int]]) -> None:
        """Go on with the next tokens of each row, together and alone.

        :raises ValueError: it is not the same.
        """
        lengths = [len(piece) for piece in pieces]
        tokens = [piece + [0] * (max(lengths) - len(piece)) for piece in pieces]
        with caches.padded(self.batch, lengths):
            together = self.module(mx.array(tokens), cache=self.batch).astype(mx.float32)
        for found, cache, piece in zip(together, self.alone, pieces, strict=True):
            expected = self.module(mx.array([piece]), cache=cache)[0].astype(mx.float32)
            check_same("a row in a batch", self.module, found[: len(piece)], expected)


def check_same(what: str, module: Any, found: mx.array, expected: mx.array) -> None:
    """Compare logits with those of a sequence alone.

    :param what: whose they are, for the error.

    :raises ValueError: they are not the same.
    """
    weights = tree_flatten(module.parameters())
    near = max(NEAR.get(weight.dtype, 0.0) for _, weight in weights)
    difference = mx.abs(found.astype(mx.float32) - expected.astype(mx.float32)).max()
    span = (expected.max() - expected.min()).astype(mx.float32)
    if not (difference / (span + 1e-6)).item() <= near:
        raise ValueError(f"{what} is not what it is alone")
