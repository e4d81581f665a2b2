"""Which candidates may start: pure decisions over those that wait and those that run."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile

from lmx_kernel.runtime.answer import Candidate
from lmx_kernel.types import EngineLimits


def reserved_tokens(candidate: Candidate, limits: EngineLimits, expected_tokens: int) -> int:
    """Return the tokens of cache that a candidate is admitted with: its prompt, and the larger of
    its answer so far and what an answer is expected to need.
    """
    prompt = candidate.answer.prompt_tokens or 0
    wanted = candidate.answer.request.max_tokens
    more = expected_tokens if wanted is None else min(wanted, expected_tokens)
    answer = max(len(candidate.tokens) + 1, more)
    return min(prompt + answer, limits.context_length)


def plan_admissions(
    waiting: Iterable[Candidate],
    running: Iterable[Candidate],
    limits: EngineLimits,
    expected_tokens: int,
) -> list[Candidate]:
    """Return the candidates at the head of ``waiting`` that fit beside ``running``.

    Strictly first come, first served: a candidate that waits for room is not overtaken. A candidate
    alone always fits, so the queue cannot get stuck.
    """
    active = list(running)
    slots = limits.max_sequences - len(active)
    room = limits.cache_tokens - sum(
        reserved_tokens(candidate, limits, expected_tokens) for candidate in active
    )

    def fits(candidate: Candidate) -> bool:
        nonlocal slots, room
        slots -= 1
        room -= reserved_tokens(candidate, limits, expected_tokens)
        return slots >= 0 and room >= 0

    return list(takewhile(fits, waiting))
