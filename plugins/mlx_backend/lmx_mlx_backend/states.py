"""The states of sequences as bytes, by which they outlive this process.

Plain numbers, no pickle: for each layer the keys of a block, then its values, as they lie in
memory. What they are is known from the model, so a state holds nothing that could be wrong about
it.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from importlib.metadata import version
from math import prod
from typing import Any

import mlx.core as mx
import numpy as np
from attrs import define, field, frozen
from mlx_lm.models.cache import KVCache

from lmx_kernel.engine import STATE_TOKENS
from lmx_kernel.engine.running import RunningSet
from lmx_kernel.engine.token_runs import common
from lmx_mlx_backend import caches
from lmx_mlx_backend.architectures import find_plugin
from lmx_mlx_backend.batch_check import prompted
from lmx_mlx_backend.blas import matrix_library
from lmx_mlx_backend.caches import Cache
from lmx_mlx_backend.group import Row
from lmx_mlx_backend.groups import Groups
from lmx_mlx_backend.prefill_budget import PrefillBudget
from lmx_mlx_backend.prefix import PrefixCache

FORMAT = 1
"""Counts changes of what a block's bytes are."""


@frozen
class BlockLayout:
    """The arrays of a block, in their order: of each layer the keys and the values.

    :ivar shapes: of (1, heads, tokens, width) each.
    """

    shapes: tuple[tuple[int, ...], ...]
    types: tuple[mx.Dtype, ...]

    @classmethod
    def of(cls, module: Any) -> BlockLayout | None:
        """Return the layout for a model; None unless all its layers attend to all tokens before."""
        cache = prompted(module, [0])
        if not all(type(layer) is KVCache for layer in cache):
            return None
        arrays = [array for layer in cache for array in (layer.keys, layer.values)]
        shapes = tuple((1, array.shape[1], STATE_TOKENS, array.shape[3]) for array in arrays)
        return cls(shapes, tuple(array.dtype for array in arrays))

    @property
    def sizes(self) -> list[int]:
        """Bytes of each array."""
        pairs = zip(self.shapes, self.types, strict=True)
        return [prod(shape) * kind.size for shape, kind in pairs]

    def pack(self, cache: Cache, row: int, start: int) -> memoryview:
        """Return the bytes of a block of a row.

        :param start: its first token.
        """
        cells = list(_cells(cache, row, start))
        if not reads_in_place():
            return caches.packed(array[row, :, at : at + STATE_TOKENS] for array, at in cells)
        arrays = [_readable(array) for array, _ in cells]
        mx.eval(arrays)
        wholes = zip(map(np.asarray, arrays), cells, strict=True)
        parts = [whole[row, :, at : at + STATE_TOKENS].tobytes() for whole, (_, at) in wholes]
        return memoryview(b"".join(parts))

    def unpack(self, states: Seq[bytearray]) -> list[mx.array]:
        """Return the arrays of consecutive blocks.

        :raises ValueError: one of them has another length.
        """
        sizes = self.sizes
        if {len(state) for state in states} != {sum(sizes)}:
            raise ValueError("a state of another model")
        arrays, place = [], 0
        for shape, kind, size in zip(self.shapes, self.types, sizes, strict=True):
            blocks = [
                np.frombuffer(state, np.uint8, size, place).reshape(*shape[:-1], -1)
                for state in states
            ]
            arrays.append(mx.array(np.concatenate(blocks, 2)).view(kind))
            place += size
        return arrays


@define(eq=False)
class MlxStates:
    """Implements :class:`lmx_kernel.engine.PortableStates` for caches of plain attention."""

    identity: str
    _module: Any
    _layout: BlockLayout
    _store: PrefixCache
    _groups: Groups
    _budget: PrefillBudget
    _running: RunningSet[Row] = field(repr=False)

    @property
    def prompt_token_s(self) -> float:
        """What a token of a prompt takes to compute, in seconds."""
        return self._budget.row_s

    def computed(self, sequence_id: int) -> int:
        """Return how many tokens of a running sequence are computed; 0 for an unknown one."""
        row = self._find(sequence_id)
        return min(row.done, len(row.tokens)) if row is not None else 0

    def export_block(self, sequence_id: int, start: int) -> memoryview | None:
        """Return a copy of the state of a block of a running sequence; None if it is not there."""
        row, end = self._find(sequence_id), start + STATE_TOKENS
        if row is None or row.done < end:
            return None
        cache, place = row.cache, 0
        if not cache:
            group = next((one for one in self._groups.all if row in one.rows), None)
            if group is None:
                return None
            cache, place = group.cache, group.rows.index(row)
        return self._layout.pack(cache, place, start)

    def held(self, tokens: Seq[int], cache_space: str) -> int:
        """Return how many of ``tokens`` are in memory, or are being computed."""
        others = (
            common(tokens, row.tokens)
            for row in self._running
            if row.in_prefill and row.cache_space == cache_space
        )
        return max(self._store.best(tokens, cache_space), *others, 0)

    def import_blocks(
        self, tokens: Seq[int], cache_space: str, start: int, states: Seq[bytearray]
    ) -> bool:
        """Keep ``tokens`` as a prefix; ``states`` are of those from ``start`` on."""
        end = start + len(states) * STATE_TOKENS
        try:
            arrays = self._layout.unpack(states)
        except ValueError:
            return False
        if end < len(tokens):
            return False
        cache = caches.new(self._module)
        for layer, keys, values in zip(cache, arrays[::2], arrays[1::2], strict=True):
            layer.offset = len(tokens) - start
            layer.keys, layer.values = (one[..., : layer.offset, :] for one in (keys, values))
        mx.eval(caches.arrays(cache))
        return self._store.extend(list(tokens), cache_space, start, cache)

    def _find(self, sequence_id: int) -> Row | None:
        return next((row for row in self._running if row.id == sequence_id), None)


def identity_of(architecture: str, layout: object) -> str:
    """Return what a state depends on beside the model's files."""
    return f"{FORMAT} {numbers_of(architecture)} {layout}"


def numbers_of(architecture: str) -> str:
    """Return what numbers depend on beside the model's files and how rows are batched."""
    plugin = find_plugin(architecture)
    source = f"{plugin.value} {plugin.dist.version if plugin.dist else ''}" if plugin else "mlx-lm"
    return (
        f"mlx {version('mlx')} mlx-lm {version('mlx-lm')} {source} "
        f"{mx.default_device()} {platform.machine()} {matrix_library()}"
    )


def reads_in_place() -> bool:
    """Return whether the arrays lie in memory that the interpreter can read: all but those of CUDA,
    which would be moved there as a whole.
    """
    return sys.platform == "darwin" or mx.default_device() == mx.cpu


def _cells(cache: Cache, row: int, start: int) -> Iterator[tuple[mx.array, int]]:
    """Yield the keys and the values of each layer, and where a row has the token ``start`` in them:
    rows of a batch are padded on the left.
    """
    for layer in cache:
        shift = layer.left_padding.tolist()[row] if hasattr(layer, "left_padding") else 0
        yield layer.keys, shift + start
        yield layer.values, shift + start


def _readable(array: mx.array) -> mx.array:
    """Return the same bytes as numbers of a type that numpy has."""
    return array.view(mx.uint16) if array.dtype == mx.bfloat16 else array
