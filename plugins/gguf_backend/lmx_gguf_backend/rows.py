"""Rows of a computation, as the library takes them: token, place, and the slot it belongs to."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import llama_cpp as llama
import numpy as np
from attrs import define, field, frozen
from numpy.typing import NDArray


@frozen
class Piece:
    """Consecutive tokens of one slot, the first at ``position``.

    :param outputs: of how many of its last tokens the logits are wanted.
    """

    slot: int
    tokens: Sequence[int]
    position: int
    outputs: int

    @property
    def drafts(self) -> int:
        """How many of its tokens, the last ones, are drafts: all outputs but the first."""
        return max(self.outputs - 1, 0)


@define
class Rows:
    """The arrays that a llama_batch points at, filled by slices instead of one by one.

    :param room: the most rows there can be.
    """

    room: int
    count: int = 0
    tokens: NDArray[np.int32] = field(init=False)
    positions: NDArray[np.int32] = field(init=False)
    slots: NDArray[np.int32] = field(init=False)
    outputs: NDArray[np.int8] = field(init=False)
    ones: NDArray[np.int32] = field(init=False)
    slot_pointers: NDArray[np.uintp] = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Make the arrays; they stay where they are, since pointers go to them."""
        self.tokens, self.positions, self.slots, self.ones = np.ones((4, self.room), np.int32)
        self.outputs = np.zeros(self.room, np.int8)
        base, step = self.slots.ctypes.data, self.slots.itemsize
        self.slot_pointers = (base + step * np.arange(self.room)).astype(np.uintp)

    def clear(self) -> None:
        """Begin a new computation."""
        self.count = 0

    def add(self, piece: Piece, vocabulary: int) -> None:
        """Add the rows of ``piece``, which the caller knows to fit."""
        start, end = self.count, self.count + len(piece.tokens)
        self.tokens[start:end] = piece.tokens
        check(self.tokens[start:end].min() >= 0 and self.tokens[start:end].max() < vocabulary)
        self.positions[start:end] = np.arange(piece.position, piece.position + end - start)
        self.slots[start:end] = piece.slot
        self.outputs[start:end] = 0
        self.outputs[end - piece.outputs : end] = 1
        self.count = end

    def batch(self) -> llama.llama_batch:
        """Return the rows as the library takes them; they must not change before it is done."""
        return llama.llama_batch(
            n_tokens=self.count,
            token=_pointer(self.tokens, llama.llama_token),
            pos=_pointer(self.positions, llama.llama_pos),
            n_seq_id=_pointer(self.ones, ctypes.c_int32),
            seq_id=_pointer(self.slot_pointers, ctypes.POINTER(llama.llama_seq_id)),
            logits=_pointer(self.outputs, ctypes.c_int8),
        )


def _pointer(array: NDArray[Any], kind: type[Any]) -> Any:
    return ctypes.cast(array.ctypes.data, ctypes.POINTER(kind))


def check(is_right: bool) -> None:
    """Stop a call that would end the process.

    :raises ValueError: which is a fault of the caller.
    """
    if not is_right:
        raise ValueError("a wrong argument on its way to llama.cpp")
