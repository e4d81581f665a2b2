"""The architecture `kept`: layers that remember with a decay, and a cache of their own.

Two names make a module an architecture: `ModelArgs`, made of a model's config.json, and `Model`,
called with tokens (rows, length) and a cache for each layer, which returns logits (rows, length,
vocabulary). Batching, sampling and text are LMX's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx_lm.models.base import BaseModelArgs

DECAY = 0.9


@dataclass
class ModelArgs(BaseModelArgs):
    """The keys of config.json that matter; all others are passed over."""

    model_type: str = "kept"
    vocab_size: int = 320
    hidden_size: int = 64
    num_hidden_layers: int = 2


class KeptCache:
    """What a layer remembers, of one sequence or of all rows of a batch: an array (rows, size).

    Layers with attention need no cache of their own: without `Model.make_cache` mlx-lm makes one.
    """

    def __init__(self, memory: mx.array) -> None:
        self.memory = memory

    @property
    def state(self) -> mx.array:
        """The arrays that have to be computed for the cache to be complete."""
        return self.memory

    @property
    def nbytes(self) -> int:
        """What they take."""
        return self.memory.nbytes

    def is_trimmable(self) -> bool:
        """Return whether the last tokens can be taken off (by `trim`): not of a running sum."""
        return False

    @classmethod
    def merge(cls, caches: Sequence[KeptCache]) -> KeptCache:
        """Return a batch of the caches of single sequences."""
        return cls(mx.concatenate([cache.memory for cache in caches]))

    def extend(self, other: KeptCache) -> None:
        """Add the rows of another batch behind those of this one."""
        self.memory = mx.concatenate([self.memory, other.memory])

    def filter(self, rows: Sequence[int]) -> None:
        """Keep only these rows."""
        self.memory = self.memory[mx.array(rows)]

    def extract(self, row: int) -> KeptCache:
        """Return the cache of one row, which stays in the batch."""
        return KeptCache(self.memory[row : row + 1])


class Layer(nn.Module):
    """Each token adds to the memory, which fades, and reads from it."""

    def __init__(self, args: ModelArgs) -> None:
        super().__init__()
        size = args.hidden_size
        self.norm = nn.RMSNorm(size)
        self.write, self.gate = nn.Linear(size, size), nn.Linear(size, size)
        self.out = nn.Linear(size, size, bias=False)

    def __call__(self, x: mx.array, cache: KeptCache | None) -> mx.array:
        normed = self.norm(x)
        places = mx.arange(x.shape[1])
        ages = places[:, None] - places[None]
        weights = mx.where(ages >= 0, mx.power(DECAY, mx.maximum(ages, 0)), 0.0)
        memory = weights @ self.write(normed)
        if cache is not None:
            faded = mx.power(DECAY, places + 1)[None, :, None]
            memory = memory + faded * cache.memory[:, None]
            cache.memory = memory[:, -1]
        return x + self.out(memory * nn.silu(self.gate(normed)))


class Model(nn.Module):
    """Tokens to logits."""

    def __init__(self, args: ModelArgs) -> None:
        super().__init__()
        self.args = args
        self.model_type = args.model_type
        self.embed = nn.Embedding(args.vocab_size, args.hidden_size)
        self.layers = [Layer(args) for _ in range(args.num_hidden_layers)]
        self.norm = nn.RMSNorm(args.hidden_size)

    def make_cache(self) -> list[KeptCache]:
        """Return an empty cache of one sequence for each layer."""
        empty = mx.zeros((1, self.args.hidden_size))
        return [KeptCache(empty) for _ in self.layers]

    def __call__(self, inputs: mx.array, cache: list[Any] | None = None) -> mx.array:
        x = self.embed(inputs)
        caches: list[Any] = cache if cache is not None else [None] * len(self.layers)
        for layer, held in zip(self.layers, caches, strict=True):
            x = layer(x, held)
        return self.embed.as_linear(self.norm(x))
