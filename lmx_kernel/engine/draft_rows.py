"""What a backend does for a draft model."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import Any, Protocol

from attrs import frozen


@frozen
class DraftPiece:
    """Consecutive tokens of one slot.

    :param position: of the first; the slot holds the tokens before it.
    :param is_drawn: whether the logits after the last one are wanted.
    """

    slot: int
    tokens: Seq[int]
    position: int
    is_drawn: bool = True


class DraftRows(Protocol):
    """Holds tokens of sequences in slots, and computes more of them. All methods are called from
    the thread that steps the engine.

    :ivar token_bytes: of its vocabulary, see :class:`lmx_kernel.engine.Tokenizer`.
    :ivar slots: sequences that it can hold; their numbers begin with 0.
    :ivar context_length: tokens that one of them may have.
    :ivar cache_tokens: tokens that all of them together may have.
    :ivar steps_s: what computing so many rows takes, measured at the load, in seconds; at least for
        one row.
    """

    token_bytes: Seq[bytes]
    slots: int
    context_length: int
    cache_tokens: int
    steps_s: dict[int, float]

    def compute(self, pieces: Seq[DraftPiece]) -> Seq[Any] | None:
        """Compute pieces of different slots, in one batch.

        :returns: for each piece that is drawn a numpy array of float32, the logits after its last
            token, which may be written to; None if it failed: then nothing is known of what the
            slots hold.
        """
        ...

    def cut(self, slot: int, length: int) -> bool:
        """Let a slot hold its first tokens only.

        :returns: False where that cannot be; then it holds nothing.
        """
        ...

    def close(self) -> None:
        """Free everything."""
        ...
