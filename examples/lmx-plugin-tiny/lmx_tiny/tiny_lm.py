"""The architecture `tiny_lm`: a small transformer.

What makes a file an architecture are two names: ``ModelArgs``, built from the model's config.json,
and ``Model``, called with token ids (B, L) and a cache for each layer, which returns logits
(B, L, vocabulary). Batching, sampling, caches and text are LMX's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx_lm.models.base import (
    BaseModelArgs,
    create_attention_mask,
    scaled_dot_product_attention,
)


@dataclass
class ModelArgs(BaseModelArgs):
    """The keys of config.json that matter; all others are passed over."""

    model_type: str = "tiny_lm"
    vocab_size: int = 320
    hidden_size: int = 64
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    rope_theta: float = 10_000.0


class Attention(nn.Module):
    """Causal attention over what the cache holds."""

    def __init__(self, args: ModelArgs) -> None:
        super().__init__()
        self.heads = args.num_attention_heads
        width = args.hidden_size // self.heads
        self.scale = width**-0.5
        self.qkv = nn.Linear(args.hidden_size, 3 * args.hidden_size, bias=False)
        self.out = nn.Linear(args.hidden_size, args.hidden_size, bias=False)
        self.rope = nn.RoPE(width, base=args.rope_theta)

    def __call__(self, x: mx.array, mask: Any, cache: Any) -> mx.array:
        batch, length, size = x.shape
        split = self.qkv(x).reshape(batch, length, 3, self.heads, -1)
        queries, keys, values = (split[:, :, n].transpose(0, 2, 1, 3) for n in range(3))
        offset = cache.offset if cache is not None else 0
        queries, keys = self.rope(queries, offset=offset), self.rope(keys, offset=offset)
        if cache is not None:
            keys, values = cache.update_and_fetch(keys, values)
        mixed = scaled_dot_product_attention(
            queries, keys, values, cache=cache, scale=self.scale, mask=mask
        )
        return self.out(mixed.transpose(0, 2, 1, 3).reshape(batch, length, size))


class Block(nn.Module):
    """Attention and a feed-forward layer, each around a residual."""

    def __init__(self, args: ModelArgs) -> None:
        super().__init__()
        size = args.hidden_size
        self.attention_norm, self.mlp_norm = nn.RMSNorm(size), nn.RMSNorm(size)
        self.attention = Attention(args)
        self.up, self.down = nn.Linear(size, 4 * size), nn.Linear(4 * size, size)

    def __call__(self, x: mx.array, mask: Any, cache: Any) -> mx.array:
        x = x + self.attention(self.attention_norm(x), mask, cache)
        return x + self.down(nn.silu(self.up(self.mlp_norm(x))))


class Model(nn.Module):
    """Token ids to logits."""

    def __init__(self, args: ModelArgs) -> None:
        super().__init__()
        self.args = args
        self.model_type = args.model_type
        self.embed = nn.Embedding(args.vocab_size, args.hidden_size)
        self.layers = [Block(args) for _ in range(args.num_hidden_layers)]
        self.norm = nn.RMSNorm(args.hidden_size)

    def __call__(self, inputs: mx.array, cache: list[Any] | None = None) -> mx.array:
        x = self.embed(inputs)
        caches: list[Any] = cache if cache is not None else [None] * len(self.layers)
        mask = create_attention_mask(x, caches[0])
        for layer, held in zip(self.layers, caches, strict=True):
            x = layer(x, mask, held)
        return self.embed.as_linear(self.norm(x))
