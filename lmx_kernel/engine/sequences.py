"""What every engine does with sequences, whatever computes them."""

from __future__ import annotations

import math
import struct
from collections.abc import Collection
from collections.abc import Sequence as Seq
from hashlib import blake2b

from attrs import define, field

from lmx_kernel.engine.protocol import Output, Progress, Sequence, Step
from lmx_kernel.errors import ContextOverflowError, InvalidRequestError
from lmx_kernel.types import EngineLimits, Sampling

BLOCK = 256


@define
class StepBuilder:
    """What the step at hand did so far; the fields are those of :class:`Step`."""

    outputs: list[Output] = field(factory=list)
    progress: list[Progress] = field(factory=list)
    preempted: list[int] = field(factory=list)
    failed: list[tuple[int, str]] = field(factory=list)

    def build(self) -> Step:
        """Return the step."""
        return Step(
            tuple(self.outputs), tuple(self.progress), tuple(self.preempted), tuple(self.failed)
        )


def check_sequence(
    sequence: Sequence, running: Collection[int], limits: EngineLimits, vocabulary: int
) -> None:
    """Refuse what must not reach native code.

    :param running: the ids of the engine's sequences.
    :param vocabulary: how many tokens there are.
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


def check_sampling(sampling: Sampling, vocabulary: int) -> None:
    """Refuse numbers that would make every logit meaningless.

    :raises InvalidRequestError: out of range, not finite, or an unknown token.
    """
    numbers = (
        sampling.temperature, sampling.top_p, sampling.min_p, sampling.repetition_penalty,
        sampling.presence_penalty, sampling.frequency_penalty, *sampling.logit_bias.values(),
    )  # fmt: skip
    if not all(math.isfinite(number) for number in numbers):
        raise InvalidRequestError("sampling parameters must be finite numbers")
    if sampling.repetition_penalty <= 0:
        raise InvalidRequestError("repetition_penalty must be above 0")
    if not all(0 <= token < vocabulary for token in sampling.logit_bias):
        raise InvalidRequestError("logit_bias names a token outside the vocabulary")


def has_penalties(sampling: Sampling) -> bool:
    """Return whether what was said before matters."""
    return (
        sampling.repetition_penalty != 1
        or sampling.presence_penalty != 0
        or sampling.frequency_penalty != 0
    )


def uniform(seed: int, index: int) -> float:
    """Return the number in [0, 1) that belongs to a seed and a place in the answer.

    A draw hangs on these two alone, so a sequence that comes back goes on as if undisturbed. It
    has 24 bits, as many as a float32 can tell apart.
    """
    key = struct.pack("<QQ", seed & 0xFFFF_FFFF_FFFF_FFFF, index)
    return (int.from_bytes(blake2b(key, digest_size=8).digest(), "little") >> 40) / (1 << 24)


def common(a: Seq[int], b: Seq[int]) -> int:
    """Return how many tokens ``a`` and ``b`` share from the start.

    Compares slices of a block: many times faster than one by one.
    """
    limit = min(len(a), len(b))
    for start in range(0, limit, BLOCK):
        if a[start : start + BLOCK] != b[start : start + BLOCK]:
            block = range(start, min(start + BLOCK, limit))
            return next((i for i in block if a[i] != b[i]), limit)
    return limit
