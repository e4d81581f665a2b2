"""The states of models whose layers do not all attend to all tokens before, as bytes.

Such a state is that of a beginning as a whole. As with blocks it is plain numbers, no pickle: the
arrays of each layer as they lie in memory, whose types and shapes follow from the model and the
number of tokens, so there is nothing in it that could be wrong about them.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Seq
from math import prod
from typing import Any

import mlx.core as mx
import numpy as np
from attrs import define, field, frozen
from mlx_lm.models.cache import ArraysCache, CacheList, KVCache, RotatingKVCache

from lmx_mlx_backend import caches
from lmx_mlx_backend.batch_check import check_same, prompt_of, prompted
from lmx_mlx_backend.caches import Cache
from lmx_mlx_backend.prefill_budget import PrefillBudget
from lmx_mlx_backend.prefix import PrefixCache

Shape = tuple[int, ...]
PROBE = 3
"""Tokens of the state that tells a model's layout."""


@frozen
class LayerLayout:
    """What the cache of a layer holds.

    :ivar shapes: of its arrays; of keys and values for one token.
    :ivar tokens: whether these grow with the tokens.
    :ivar window: tokens that it holds at most; 0 for all.
    """

    shapes: tuple[Shape, ...]
    types: tuple[mx.Dtype, ...]
    tokens: bool
    window: int = 0

    @classmethod
    def of(cls, layer: Any) -> LayerLayout:
        """Return the layout of a layer that holds some tokens.

        :raises ValueError: it is of no known kind, or holds nothing.
        """
        kind, window = type(layer), 0
        if kind not in (KVCache, RotatingKVCache, ArraysCache):
            raise ValueError(f"a cache of the kind {kind.__name__}")
        if kind is RotatingKVCache:
            if layer.keep:
                raise ValueError("a window that keeps its first tokens")
            window = layer.max_size
        arrays = _arrays(layer)
        if any(array is None for array in arrays):
            raise ValueError("a cache that is not all filled")
        shapes = [tuple(array.shape) for array in arrays]
        grows = kind is not ArraysCache
        if grows:
            shapes = [(*shape[:2], 1, shape[3]) for shape in shapes]
        return cls(tuple(shapes), tuple(array.dtype for array in arrays), grows, window)

    def shapes_of(self, tokens: int) -> list[Shape]:
        """Return the shapes of its arrays once it holds so many tokens."""
        if not self.tokens:
            return list(self.shapes)
        held = min(tokens, self.window) if self.window else tokens
        return [(*shape[:2], held, shape[3]) for shape in self.shapes]

    def fill(self, layer: Any, arrays: list[mx.array], tokens: int) -> None:
        """Let an empty layer hold arrays of these shapes."""
        if not self.tokens:
            layer.cache = arrays
            return
        layer.keys, layer.values = arrays
        layer.offset = tokens
        if self.window:
            layer._idx = arrays[0].shape[2]  # noqa: SLF001 - where the next token goes


@frozen
class WholeLayout:
    """The arrays of a state, in their order."""

    layers: tuple[LayerLayout, ...]

    @classmethod
    def of(cls, module: Any) -> WholeLayout:
        """Return the layout for a model, of which it was tried out that it goes on from a state.

        :raises ValueError: its caches are not understood.
        """
        cache = prompted(module, prompt_of(PROBE))
        layout = cls(tuple(LayerLayout.of(layer) for layer in _flat(cache)))
        other = layout.unpack(module, layout.pack(cache, PROBE), PROBE)
        found, expected = (module(mx.array([[0]]), cache=one)[0] for one in (other, cache))
        check_same("a sequence that goes on from its state", module, found, expected)
        return layout

    def size_bytes(self, tokens: int) -> int:
        """Return the size of a state of so many tokens."""
        return sum(_size(*array) for array in self._arrays(tokens))

    def pack(self, cache: Cache, tokens: int) -> memoryview:
        """Return the bytes of a cache that holds so many tokens.

        :raises ValueError: it holds something else than this model's caches do.
        """
        plain = caches.extract(caches.merge([cache]), 0)  # in the order of the tokens, no room left
        arrays = [array for layer in _flat(plain) for array in _arrays(layer)]
        expected = list(self._arrays(tokens))
        if [(tuple(array.shape), array.dtype) for array in arrays] != expected:
            raise ValueError("a cache of other shapes")
        return caches.packed(arrays)

    def unpack(self, module: Any, state: bytearray | memoryview, tokens: int) -> Cache:
        """Return the cache of a state of so many tokens.

        :raises ValueError: it has another length.
        """
        if len(state) != self.size_bytes(tokens):
            raise ValueError("a state of another model")
        cache, place = caches.new(module), 0
        for layer, layout in zip(_flat(cache), self.layers, strict=True):
            arrays = []
            for shape, kind in zip(layout.shapes_of(tokens), layout.types, strict=True):
                size = _size(shape, kind)
                numbers = mx.array(np.frombuffer(state, np.uint8, size, place))
                arrays.append(numbers.view(kind).reshape(shape))
                place += size
            layout.fill(layer, arrays, tokens)
        mx.eval(caches.arrays(cache))
        return cache

    def _arrays(self, tokens: int) -> Iterator[tuple[Shape, mx.Dtype]]:
        for layer in self.layers:
            yield from zip(layer.shapes_of(tokens), layer.types, strict=True)


@define(eq=False)
class MlxWholeStates:
    """Implements :class:`lmx_kernel.engine.WholeStates` with the prefixes that the engine keeps."""

    identity: str
    _module: Any
    _layout: WholeLayout
    _store: PrefixCache = field(repr=False)
    _budget: PrefillBudget

    @property
    def prompt_token_s(self) -> float:
        """What a token of a prompt takes to compute, in seconds."""
        return self._budget.row_s

    def held(self, tokens: Seq[int], cache_space: str) -> int:
        """Return how many of ``tokens`` a prompt that is the same could begin with."""
        return self._store.best(tokens, cache_space)

    def export_whole(self, tokens: Seq[int], cache_space: str) -> memoryview | None:
        """Return the state of exactly ``tokens``; None if it is not kept, or not as expected."""
        found = self._store.take([*tokens, 0], cache_space)
        if found is None or found[0] != len(tokens):
            return None
        try:
            return self._layout.pack(found[1], len(tokens))
        except ValueError:
            return None

    def import_whole(self, tokens: Seq[int], cache_space: str, state: bytearray) -> bool:
        """Keep the state of exactly ``tokens``."""
        try:
            cache = self._layout.unpack(self._module, state, len(tokens))
        except ValueError:
            return False
        self._store.keep(list(tokens), cache_space, cache)
        return self._store.best([*tokens, 0], cache_space) == len(tokens)


def _flat(cache: Any) -> Iterator[Any]:
    """Yield the caches of all layers, those in lists too."""
    for layer in cache:
        if type(layer) is CacheList:
            yield from _flat(layer.caches)
        else:
            yield layer


def _arrays(layer: Any) -> list[Any]:
    return list(layer.cache) if type(layer) is ArraysCache else [layer.keys, layer.values]


def _size(shape: Shape, kind: mx.Dtype) -> int:
    return prod(shape) * kind.size
