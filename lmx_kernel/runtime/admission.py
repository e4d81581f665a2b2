"""Who may run next: pure decisions over what waits and what runs."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile

from lmx_kernel.runtime.answer import Candidate
from lmx_kernel.types import EngineLimits


def reserved_tokens(candidate: Candidate, limits: EngineLimits, expected_tokens: int) -> int:
    """Return the cache room that a candidate is admitted with: prompt, answer so far, and more."""
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

    Strictly first come, first served: nobody overtakes one that waits for room. A candidate alone
    always fits, so the queue cannot get stuck.
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
