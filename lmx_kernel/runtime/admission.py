"""Which candidates may start: pure decisions over those that wait and those that run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from heapq import nsmallest
from itertools import takewhile
from operator import itemgetter

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
    """Return the candidates that may start beside ``running``, in the order of their starts.

    Callers take turns: next is the caller with the fewest that run, and of several such callers the
    one whose candidate came first. Those of one caller start in the order in which they came. The
    next one that finds no room ends the plan, so large ones are not overtaken by small ones. A
    candidate alone always fits, so the queue cannot get stuck.

    :param waiting: first come first.
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

    turns = nsmallest(slots, _turns(waiting, active), key=itemgetter(0, 1))
    return list(takewhile(fits, (candidate for _, _, candidate in turns)))


def _turns(
    waiting: Iterable[Candidate], running: Iterable[Candidate]
) -> Iterator[tuple[int, int, Candidate]]:
    """Yield each candidate that waits after what orders them: how many of its caller run or come
    before it, and its place among all that wait.
    """
    taken = Counter(candidate.answer.request.caller for candidate in running)
    for place, candidate in enumerate(waiting):
        caller = candidate.answer.request.caller
        yield taken[caller], place, candidate
        taken[caller] += 1
