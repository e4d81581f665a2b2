"""States of sequences as bytes, by which they outlive their engine: of blocks of tokens where these
stand by themselves, and of whole beginnings where they do not.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import Protocol, runtime_checkable

STATE_TOKENS = 16
"""Tokens of a state that an engine hands over: of a block."""


class PortableStates(Protocol):
    """The states of an engine's sequences, as bytes that another process can continue from.

    A block is :data:`STATE_TOKENS` consecutive tokens, the first at a multiple of that. Only for
    models in which the state of a block stands by itself, given the tokens before it: attention
    over all of them, or over a window that is longer than a block. Tokens are any integers. All
    methods are called from the thread that steps the engine.

    :ivar identity: all that the numbers depend on beside the model's files: library and version,
        type of the cache, settings that change how something is computed.
    """

    identity: str

    @property
    def prompt_token_s(self) -> float:
        """What a token of a prompt takes to compute, in seconds."""
        ...

    def computed(self, sequence_id: int) -> int:
        """Return how many tokens of a running sequence are computed; 0 for an unknown one."""
        ...

    def export_block(self, sequence_id: int, start: int) -> memoryview | None:
        """Return a copy of the state of a block of a running sequence that is computed.

        :param start: its first token.
        :returns: None where there is none.
        """
        ...

    def held(self, tokens: Seq[int], cache_space: str) -> int:
        """Return how many of ``tokens``, from the first on, are in memory for this cache space, or
        are being computed.
        """
        ...

    def import_blocks(
        self, tokens: Seq[int], cache_space: str, start: int, states: Seq[bytearray]
    ) -> bool:
        """Hold ``tokens`` for later sequences of this cache space.

        :param start: the tokens before are held already; a multiple of a block.
        :param states: of the blocks from there to the end. The last block may have more tokens than
            are left of ``tokens``: these are cut off.
        :returns: False where there is no room, or a state is not one of this model; nothing that
            runs is disturbed.
        """
        ...


@runtime_checkable
class WholeStates(Protocol):
    """The states of beginnings of sequences that cannot be cut: of sliding windows and of recurrent
    layers, which forget what came before.

    The engine keeps some of them in memory for later sequences: one shortly before the end of each
    prompt, and one of all that was computed of a sequence that was removed. The kernel stores what
    is kept. Tokens are any integers. All methods are called from the thread that steps the engine.

    :ivar identity: as of :class:`PortableStates`.
    """

    identity: str

    @property
    def prompt_token_s(self) -> float:
        """What a token of a prompt takes to compute, in seconds."""
        ...

    def held(self, tokens: Seq[int], cache_space: str) -> int:
        """Return how many of ``tokens`` a prompt that is the same could begin with: never all of
        them, since the logits of the last one are needed.
        """
        ...

    def export_whole(self, tokens: Seq[int], cache_space: str) -> memoryview | None:
        """Return the state of exactly ``tokens``, which nobody changes any more; None if it is not
        kept.
        """
        ...

    def import_whole(self, tokens: Seq[int], cache_space: str, state: bytearray) -> bool:
        """Keep the state of exactly ``tokens`` for later sequences of this cache space.

        :returns: False where there is no room, or it is no state of this model.
        """
        ...


@runtime_checkable
class HasPortableStates(Protocol):
    """An engine whose states outlive it; the kernel stores them on disk.

    :ivar states: None where the loaded model's cannot. An attribute ``unportable`` may say why, in
        words that complete "its prefixes are not kept on disk: ".
    """

    states: PortableStates | WholeStates | None
