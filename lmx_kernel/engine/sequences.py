"""Checks of sequences."""

from __future__ import annotations

from collections.abc import Collection

from lmx_kernel.engine.protocol import Sequence
from lmx_kernel.engine.sampling import check_sampling
from lmx_kernel.errors import ContextOverflowError, InvalidRequestError
from lmx_kernel.types import EngineLimits


def check_sequence(
    sequence: Sequence, running: Collection[int], limits: EngineLimits, vocabulary: int
) -> None:
    """Refuse what must not reach native code.

    :param running: the ids of the engine's sequences.
    :param vocabulary: number of tokens.
    :raises InvalidRequestError: id, tokens or parameters are wrong, or too many run.
    :raises ContextOverflowError: longer than the context.
    """
    tokens = sequence.tokens
    if sequence.id in running:
        raise InvalidRequestError(f"sequence {sequence.id} is already running")
    if len(running) >= limits.max_sequences:
        raise InvalidRequestError(f"{limits.max_sequences} sequences run already")
    if not tokens:
        raise InvalidRequestError("a prompt needs at least one token")
    if len(tokens) > limits.context_length:
        raise ContextOverflowError(
            f"{len(tokens)} tokens do not fit a context of {limits.context_length}"
        )
    if not 0 <= sequence.produced <= len(tokens):
        raise InvalidRequestError("more tokens were produced than are there")
    if min(tokens) < 0 or max(tokens) >= vocabulary:
        raise InvalidRequestError("a token id lies outside the vocabulary")
    if sequence.logprobs is not None and sequence.logprobs < 0:
        raise InvalidRequestError("logprobs must not be negative")
    check_sampling(sequence.sampling, vocabulary)
