"""Which candidates may start: pure decisions over those that wait and those that run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush, heapreplace
from itertools import islice

from attrs import frozen

from lmx_kernel.runtime.answer import Candidate
from lmx_kernel.types import EngineLimits, GenerationRequest, Priority

_Place = tuple[int, float, int, int]


@frozen
class Plan:
    """What follows from who waits and who runs.

    :param starts: the candidates that may start, in the order of their starts.
    :param blocked: the one whose turn it is then, and for which there is no room.
    """

    starts: list[Candidate]
    blocked: Candidate | None = None


@frozen(kw_only=True)
class AdmissionRules:
    """What decides for all candidates of one model.

    :param expected_tokens: what an answer is expected to need, at most.
    :param raise_before: monotonic seconds; low requests that came before count as normal ones, as
        long as no low one runs.
    :param served: tokens over weight that a request's caller was served.
    """

    limits: EngineLimits
    expected_tokens: int
    served: Callable[[GenerationRequest], float]
    raise_before: float = float("-inf")


def cost_tokens(candidate: Candidate, rules: AdmissionRules) -> tuple[int, int]:
    """Return the tokens of cache that a candidate is admitted with, and those that it is still
    expected to be served. The former are its prompt, and the larger of its answer so far and what
    an answer is expected to need.
    """
    answer, said = candidate.answer, len(candidate.tokens)
    prompt, expected = answer.prompt_tokens or 0, rules.expected_tokens
    wanted = answer.request.max_tokens
    if wanted is not None and wanted < expected:
        expected = wanted
    reserved = prompt + (said + 1 if said >= expected else expected)
    owed = (0 if said else prompt) + (expected - said if expected > said else 0)
    return min(reserved, rules.limits.context_length), owed


def plan_admissions(
    lines: Iterable[Iterable[Candidate]], running: Iterable[Candidate], rules: AdmissionRules
) -> Plan:
    """Return the candidates that may start beside ``running``.

    Weighted fair queueing: next is who has the highest priority; of several the one whose caller
    was served the fewest tokens for its weight, what its running candidates are still expected to
    cost included; of several the one that came first. The next one that finds no room ends the
    plan, so large ones are not overtaken by small ones. A candidate alone always fits, so the queue
    cannot get stuck.

    :param lines: for each caller and priority what waits, the next one first.
    """
    taken = _Taken(running, rules)
    heads = [
        (taken.place(head), head, rest) for rest in map(iter, lines) for head in islice(rest, 1)
    ]
    heapify(heads)
    starts = list[Candidate]()
    while heads:
        place, candidate, rest = heads[0]
        if taken.is_full(candidate.answer.request):
            heappop(heads)
        elif place != (now := taken.place(candidate)):  # its caller has another line
            heapreplace(heads, (now, candidate, rest))
        elif not taken.fits(candidate):
            return Plan(starts, candidate)
        else:
            starts.append(candidate)
            taken.take(candidate)
            heappop(heads)
            for head in islice(rest, 1):
                heappush(heads, (taken.place(head), head, rest))
    return Plan(starts)


def claim_of(
    heads: Iterable[Candidate],
    served: Callable[[GenerationRequest], float],
    raise_before: float,
) -> tuple[int, float]:
    """Return what decides when a model is loaded for its requests, where not all fit; the least is
    first. The same as decides in a queue; a load without requests is one of normal priority.

    :param heads: the first of each line.
    :param raise_before: low requests that came before count as normal ones, in monotonic seconds.
    """
    claims = []
    for head in heads:
        request = head.answer.request
        rank = request.priority.rank
        rank += not rank and head.answer.created_s < raise_before
        claims.append((-rank, served(request)))
    return min(claims, default=(-Priority.NORMAL.rank, 0.0))


class _Taken:
    """What is taken, and by whom."""

    def __init__(self, running: Iterable[Candidate], rules: AdmissionRules) -> None:
        self._rules = rules
        self._slots = rules.limits.max_sequences
        self._room = rules.limits.cache_tokens
        self._owed: dict[str, float] = {}  # by caller: expected tokens over weight
        self._running: dict[str, int] = {}
        self._has_low = False
        for candidate in running:
            self.take(candidate)

    def fits(self, candidate: Candidate) -> bool:
        """Whether there is room for a candidate."""
        return self._slots > 0 and self._room >= cost_tokens(candidate, self._rules)[0]

    def is_full(self, request: GenerationRequest) -> bool:
        """Whether as many of a request's caller run as may."""
        most = request.terms.max_running
        return most is not None and self._running.get(request.caller, 0) >= most

    def take(self, candidate: Candidate) -> None:
        """Note that a candidate runs."""
        request = candidate.answer.request
        caller = request.caller
        reserved, owed = cost_tokens(candidate, self._rules)
        self._slots -= 1
        self._room -= reserved
        self._running[caller] = self._running.get(caller, 0) + 1
        self._owed[caller] = self._owed.get(caller, 0.0) + owed / request.terms.weight
        self._has_low |= request.priority is Priority.LOW

    def place(self, candidate: Candidate) -> _Place:
        """Return what decides when a candidate is next; the least is first."""
        answer = candidate.answer
        request = answer.request
        rank, served = request.priority.rank, self._rules.served(request)
        if not rank and not self._has_low:
            rank += answer.created_s < self._rules.raise_before
        owed = self._owed.get(request.caller, 0.0)
        return -rank, served + owed, answer.resume.number, candidate.index
