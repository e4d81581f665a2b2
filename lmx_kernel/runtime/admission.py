"""Which candidates may start: pure decisions over those that wait and those that run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from heapq import heapify, heappop, heapreplace

from attrs import frozen

from lmx_kernel.runtime.answer import Candidate, Phase
from lmx_kernel.runtime.shares import Account
from lmx_kernel.types import EngineLimits, GenerationRequest, Priority

MayStart = Callable[[Candidate], bool]
_Head = tuple[int, float, int, int, Candidate, Iterator[Candidate]]
"""What decides when a line is next (the least is first), its next candidate, and those after it."""
_PREPARED = Phase.PREPARED  # members of enums take long to look up


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
    :param accounts: by caller, what it was served.
    :param may_start: says whether a candidate that is prepared may start; None is any.
    :param now_s: monotonic seconds.
    :param raise_after_s: a request that waits for so long counts as one of the next higher
        priority, as long as none of its own or a lower one runs; after twice as long of the one
        after that.
    """

    limits: EngineLimits
    expected_tokens: int
    accounts: Mapping[str, Account]
    may_start: MayStart | None = None
    now_s: float = 0.0
    raise_after_s: float = float("inf")


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
    most = rules.limits.context_length
    reserved = prompt + (said + 1 if said >= expected else expected)
    owed = (0 if said else prompt) + (expected - said if expected > said else 0)
    return (reserved if reserved < most else most), owed


def plan_admissions(
    lines: Iterable[Iterable[Candidate]], running: Iterable[Candidate], rules: AdmissionRules
) -> Plan:
    """Return the candidates that are to start beside ``running``; only those that are prepared are.

    Weighted fair queueing: next is who has the highest priority; of several the one whose caller
    was served the fewest tokens for its weight, what its running candidates are still expected to
    cost included; of several the one that came first. The next one that finds no room ends the
    plan, so large ones are not overtaken by small ones. A candidate alone always fits, so the queue
    cannot get stuck.

    It looks at the heads of the lines only, so what it costs depends on how many callers wait, and
    not on how many requests.

    :param lines: for each caller and priority what waits, the next one first.
    """
    taken = _Taken(running, rules)
    heads = [head for line in lines if (head := taken.first(iter(line)))]
    heapify(heads)
    starts: list[Candidate] = []
    while heads:
        head = heads[0]
        candidate, rest = head[-2:]
        if taken.is_full(candidate.answer.request):
            heappop(heads)
        elif starts and (now := taken.head(candidate, rest)) != head:  # what started changed it
            heapreplace(heads, now)
        elif not taken.fits(candidate):
            return Plan(starts, candidate)
        else:
            starts.append(candidate)
            taken.take(candidate)
            following = taken.first(rest)
            heapreplace(heads, following) if following else heappop(heads)
    return Plan(starts)


def claim_of(
    heads: Iterable[Candidate], accounts: Mapping[str, Account], now_s: float, raise_after_s: float
) -> tuple[int, float]:
    """Return what decides when a model is loaded for its requests, where not all fit; the least is
    first. The same as decides in a queue; a load without requests is one of normal priority.

    :param heads: the first of each line.
    :param now_s: monotonic seconds; for it and the others see :class:`AdmissionRules`.
    """
    claims = []
    for head in heads:
        request = head.answer.request
        rank = raised_rank(request.priority, now_s - head.answer.created_s, raise_after_s)
        claims.append((-rank, accounts[request.caller].served[request.priority]))
    return min(claims, default=(-Priority.NORMAL.rank, 0.0))


def raised_rank(priority: Priority, waited_s: float, raise_after_s: float) -> int:
    """Return the rank that a request counts as that waited for so long."""
    raised = (waited_s >= raise_after_s) + (waited_s >= 2 * raise_after_s)
    return min(priority.rank + raised, Priority.HIGH.rank)


class _Taken:
    """What is taken, and by whom. It is made for each decision, so it counts only what every one
    needs.
    """

    def __init__(self, running: Iterable[Candidate], rules: AdmissionRules) -> None:
        self._rules = rules
        self._accounts = rules.accounts
        self._raise_before = rules.now_s - rules.raise_after_s
        self._running: list[Candidate] = []
        self._room = rules.limits.cache_tokens
        self._owed: dict[str, float] = defaultdict(float)  # by caller: expected tokens over weight
        for candidate in running:
            self.take(candidate)

    def fits(self, candidate: Candidate) -> bool:
        """Whether there is room for a candidate."""
        limits = self._rules.limits
        has_slot = len(self._running) < limits.max_sequences
        return has_slot and self._room >= cost_tokens(candidate, self._rules)[0]

    def is_full(self, request: GenerationRequest) -> bool:
        """Whether as many of a request's caller run as may."""
        most, caller = request.terms.max_running, request.caller
        return most is not None and most <= sum(
            one.answer.request.caller == caller for one in self._running
        )

    def take(self, candidate: Candidate) -> None:
        """Note that a candidate runs."""
        request = candidate.answer.request
        reserved, owed = cost_tokens(candidate, self._rules)
        self._running.append(candidate)
        self._room -= reserved
        self._owed[request.caller] += owed / request.terms.weight

    def first(self, rest: Iterator[Candidate]) -> _Head | None:
        """Return when a line is next, by the first of ``rest`` that may start; None if none may."""
        may_start = self._rules.may_start
        for candidate in rest:
            is_prepared = candidate.answer.resume.phase is _PREPARED
            if is_prepared and (may_start is None or may_start(candidate)):
                return self.head(candidate, rest)
        return None

    def head(self, candidate: Candidate, rest: Iterator[Candidate]) -> _Head:
        """Return when a line is next of which a candidate is the next one."""
        answer = candidate.answer
        request = answer.request
        priority, caller = request.priority, request.caller
        rank = priority.rank
        if answer.created_s <= self._raise_before and not self._runs_up_to(rank):
            waited_s = self._rules.now_s - answer.created_s
            rank = raised_rank(priority, waited_s, self._rules.raise_after_s)
        used = self._accounts[caller].served[priority] + self._owed[caller]
        return -rank, used, answer.resume.number, candidate.index, candidate, rest

    def _runs_up_to(self, rank: int) -> bool:
        return any(one.answer.request.priority.rank <= rank for one in self._running)
