"""A cache in which a row's numbers do not depend on the other rows of its batch.

A matrix library computes a row by other kernels in a batch of another size, and mlx-lm's caches
pad short rows on the left, which moves their numbers to other places of a sum. So here everything
has a fixed shape and place (bitwise equal logits were found to need each of these):

- A piece of a prompt always has ``PIECE`` rows, whatever of it is used; and a batch has as many as
  the engine has slots, where the number of rows matters (:attr:`Cells.is_whole`).
- A token's keys and values lie in the cell of its position. What comes behind, to the longest row,
  is masked, and adds zeros to the end of each sum.
- Pieces of a prompt begin at multiples of ``PIECE``, and see no cells behind their own.

A sum over cells must be divided at the same places whatever their number:
:mod:`~lmx_mlx_backend.blas` says how OpenBLAS is held to that, and each load tries it out, see
:mod:`~lmx_mlx_backend.uniformity`.

So a token has one of two sets of numbers: as a part of the prompt, or as one of the answer, which
was computed in a batch. Neither stands for the other, see :func:`usable`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from attrs import define, field, frozen

from lmx_kernel.engine.token_runs import common

PIECE = 64
"""Rows of a piece of a prompt."""

STEP = 256
"""Cells are added so many at once."""

Block = list[tuple[mx.array, mx.array]]
"""Keys and values of one sequence, for each layer."""


@define(eq=False)
class LayerCells:
    """The cells of all slots in one layer, as mlx-lm's models want a cache.

    :param slots: how many there are.
    :ivar keys: of shape (slots, heads, cells, width); None before the first use.
    :ivar offset: the position of the next token of each row.
    """

    slots: int
    keys: Any = field(default=None, init=False)
    values: Any = field(default=None, init=False)
    offset: Any = field(default=None, init=False)
    _piece: tuple[int, int] | None = field(default=None, init=False)
    _seen: int = field(default=0, init=False)

    def expect_batch(self, offsets: mx.array, seen: int) -> None:
        """Compute a token of each of the first slots next, at ``offsets``; all are among the first
        ``seen`` cells.
        """
        self.offset, self._seen, self._piece = offsets, seen, None

    def expect_piece(self, slot: int, start: int) -> None:
        """Compute a piece of the prompt in ``slot`` next."""
        self.offset, self._seen, self._piece = start, start + PIECE, (slot, start)

    def make_mask(self, count: int, **_: Any) -> mx.array:
        """Return which cells each row sees: those up to its own position."""
        starts = mx.array(self.offset).reshape(-1, 1, 1, 1)
        places = starts + mx.arange(count).reshape(1, 1, -1, 1)
        return mx.arange(self._seen).reshape(1, 1, 1, -1) <= places

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Take in keys and values of the expected rows; return what these attend to."""
        self._make_room(keys, values)
        if self._piece is None:
            count = keys.shape[0]
            rows = mx.arange(count)
            self.keys[rows, :, self.offset] = keys[:, :, 0]
            self.values[rows, :, self.offset] = values[:, :, 0]
            return self.keys[:count, :, : self._seen], self.values[:count, :, : self._seen]
        slot, start = self._piece
        self.keys[slot : slot + 1, :, start : start + PIECE] = keys
        self.values[slot : slot + 1, :, start : start + PIECE] = values
        mine = slice(slot, slot + 1)
        return self.keys[mine, :, : self._seen], self.values[mine, :, : self._seen]

    def take(self, slot: int, length: int) -> tuple[mx.array, mx.array]:
        """Return a copy of the first cells of a slot."""
        mine = slice(slot, slot + 1)
        return (
            mx.contiguous(self.keys[mine, :, :length]),
            mx.contiguous(self.values[mine, :, :length]),
        )

    def put(self, slot: int, keys: mx.array, values: mx.array) -> None:
        """Let a slot begin with these cells."""
        self._seen = max(self._seen, keys.shape[2])
        self._make_room(keys, values)
        self.keys[slot : slot + 1, :, : keys.shape[2]] = keys
        self.values[slot : slot + 1, :, : values.shape[2]] = values

    def _make_room(self, keys: mx.array, values: mx.array) -> None:
        have = self.keys.shape[2] if self.keys is not None else 0
        if have >= self._seen:
            return
        more = -(-self._seen // STEP) * STEP - have

        def grown(old: Any, like: mx.array) -> mx.array:
            shape = (self.slots, like.shape[1], more, like.shape[3])
            new = mx.zeros(shape, like.dtype)
            return new if old is None else mx.concatenate([old, new], axis=2)

        self.keys, self.values = grown(self.keys, keys), grown(self.values, values)


@define(eq=False)
class Cells:
    """The cells of all layers, and the computation in them.

    :param module: the model.
    :param layers: one for each of its layers.
    :param slots: how many sequences there is room for.
    :ivar is_whole: a batch always has a row for each slot, where a row's numbers depend on how many
        rows there are; else only for those up to the last that is used.
    """

    module: Any
    layers: list[LayerCells]
    slots: int
    is_whole: bool = field(default=False, init=False)

    @classmethod
    def of(cls, module: Any, layers: int, slots: int) -> Cells:
        """Return the empty cells of a model."""
        return cls(module, [LayerCells(slots) for _ in range(layers)], slots)

    def compute_piece(self, slot: int, start: int, tokens: Sequence[int]) -> mx.array:
        """Compute a piece of a prompt; return the logits of all its rows, which cost nothing until
        they are used.

        :param start: a multiple of ``PIECE``.
        :param tokens: at most ``PIECE``.
        """
        for layer in self.layers:
            layer.expect_piece(slot, start)
        whole = [*tokens, *[0] * (PIECE - len(tokens))]
        logits = self.module(mx.array([whole]), cache=self.layers)
        self._settle()
        return logits[0]

    def compute_batch(self, tokens: dict[int, tuple[int, int]], lengths: Sequence[int]) -> mx.array:
        """Compute a token for some slots; return the logits of all up to the last of them.

        :param tokens: by slot, each with its position.
        :param lengths: of what each slot holds; a slot without a token computes one behind that.
        """
        rows = self.slots if self.is_whole else max(tokens) + 1
        pairs = [tokens.get(slot, (0, lengths[slot])) for slot in range(rows)]
        offsets = mx.array([place for _, place in pairs])
        seen = -(-(max(place for _, place in pairs) + 1) // PIECE) * PIECE
        for layer in self.layers:
            layer.expect_batch(offsets, seen)
        logits = self.module(mx.array([[token] for token, _ in pairs]), cache=self.layers)[:, -1]
        mx.eval(logits)
        self._settle()
        return logits

    def take(self, slot: int, length: int) -> Block:
        """Return a copy of the first cells of a slot."""
        block = [layer.take(slot, length) for layer in self.layers]
        mx.eval(block)
        return block

    def put(self, slot: int, block: Block, length: int) -> None:
        """Let a slot begin with the first ``length`` cells of a block."""
        for layer, (keys, values) in zip(self.layers, block, strict=True):
            layer.put(slot, keys[:, :, :length], values[:, :, :length])
        self._settle()

    def _settle(self) -> None:
        mx.eval([layer.keys for layer in self.layers], [layer.values for layer in self.layers])


def usable(tokens: Sequence[int], prompt: int, kept: Sequence[int], kept_prompt: int) -> int:
    """Return how many of a sequence's tokens have the numbers that another one computed.

    Those of both prompts, in whole pieces; and where the prompts are the same, those of both
    answers. Never all: the logits after the last are needed.

    :param prompt: how many of the tokens are the prompt.
    """
    shared = min(common(tokens, kept), len(tokens) - 1)
    if prompt == kept_prompt < shared:
        return shared
    return min(shared, prompt, kept_prompt) // PIECE * PIECE


@frozen(eq=False)
class KeptCells:
    """What a sequence computed, for later ones."""

    tokens: list[int]
    prompt: int
    space: str
    block: Block

    def covers(self, other: KeptCells) -> bool:
        """Return whether this serves whatever ``other`` does."""
        length = len(other.tokens)
        are_same = other.prompt == self.prompt or length <= min(other.prompt, self.prompt)
        is_start = other.space == self.space and common(other.tokens, self.tokens) == length
        return are_same and is_start

    @property
    def size_bytes(self) -> int:
        """What the arrays take."""
        return sum(keys.nbytes + values.nbytes for keys, values in self.block)


@define
class CellStore:
    """What is kept, the one that was not used for longest first.

    :param budget_bytes: for all.
    """

    budget_bytes: int
    _kept: list[KeptCells] = field(factory=list)

    def best(self, tokens: Sequence[int], prompt: int, space: str) -> tuple[int, Block]:
        """Return how many tokens of a sequence are kept, and where."""
        found = [
            (usable(tokens, prompt, one.tokens, one.prompt), place)
            for place, one in enumerate(self._kept)
            if one.space == space
        ]
        length, place = max(found, default=(0, 0))
        if not length:
            return 0, []
        self._kept.append(self._kept.pop(place))
        return length, self._kept[-1].block

    def keep(self, new: KeptCells) -> None:
        """Keep cells; what they hold too is not kept twice, and the oldest make room."""
        if new.size_bytes > self.budget_bytes:
            return
        self._kept = [one for one in self._kept if not new.covers(one)]
        self._kept.append(new)
        while self.size_bytes > self.budget_bytes:
            self._kept.pop(0)

    @property
    def size_bytes(self) -> int:
        """What all take."""
        return sum(one.size_bytes for one in self._kept)

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)
