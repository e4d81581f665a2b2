"""What all samplers agree on, whatever computes them.

A sampler adjusts a row of logits in this order: bias, penalties, top-k, top-p, min-p, temperature;
then it draws. The draw for the n-th token of an answer depends on the seed and on n alone, so a
sequence that was preempted continues as if it had never stopped, whatever ran beside it.
"""

from __future__ import annotations

import math
import struct
from hashlib import blake2b

from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.types import Sampling

PROMPT_TAIL = 64
"""Tokens of the prompt that penalties count, beside the whole answer."""

COLD = 1e-5
"""Below this temperature the likeliest token is taken."""

MOST_BIAS = 1e6
"""A larger bias is cut to this: it would only lead to infinities."""


def check_sampling(sampling: Sampling, vocabulary: int) -> None:
    """Refuse parameters that would make every logit meaningless.

    :param vocabulary: number of tokens.
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
    """Return whether the next token depends on earlier ones through a penalty."""
    return (
        sampling.repetition_penalty != 1
        or sampling.presence_penalty != 0
        or sampling.frequency_penalty != 0
    )


def uniform(seed: int, index: int) -> float:
    """Return the number in [0, 1) that belongs to a seed and a place in the answer.

    It has 24 bits, as many as a float32 can distinguish.
    """
    key = struct.pack("<QQ", seed & 0xFFFF_FFFF_FFFF_FFFF, index)
    return (int.from_bytes(blake2b(key, digest_size=8).digest(), "little") >> 40) / (1 << 24)
