"""Which candidates may start: pure decisions over those that wait and those that run."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

from attrs import frozen

from lmx_kernel.runtime.answer import Candidate
from lmx_kernel.types import EngineLimits, GenerationRequest, Priority


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


def reserved_tokens(candidate: Candidate, rules: AdmissionRules) -> int:
    """Return the tokens of cache that a candidate is admitted with: its prompt, and the larger of
    its answer so far and what an answer is expected to need.
    """
    prompt = candidate.answer.prompt_tokens or 0
    answer = max(len(candidate.tokens) + 1, _expected(candidate, rules))
    return min(prompt + answer, rules.limits.context_length)


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
    turns = _Turns(lines, running, rules)
    starts = list[Candidate]()
    while (candidate := turns.next()) is not None:
        if not turns.fits(candidate):
            return Plan(starts, candidate)
        turns.take(candidate)
        starts.append(candidate)
    return Plan(starts)


class _Turns:
    """The heads of the lines, and what is taken."""

    def __init__(
        self,
        lines: Iterable[Iterable[Candidate]],
        running: Iterable[Candidate],
        rules: AdmissionRules,
    ) -> None:
        self._rules = rules
        self._slots = rules.limits.max_sequences
        self._room = rules.limits.cache_tokens
        self._owed = defaultdict[str, float](float)  # by caller: expected tokens over weight
        self._running = Counter[str]()
        self._has_low = False
        for candidate in running:
            self._occupy(candidate)
        self._heads = dict[Candidate, Iterable[Candidate]]()
        for line in lines:
            self._advance(line)

    def next(self) -> Candidate | None:
        """Return whose turn it is; None if nobody may start."""
        best = min(self._heads, key=self._order, default=None)
        return None if best is None or self._is_full(best) else best

    def fits(self, candidate: Candidate) -> bool:
        """Whether there is room for a candidate."""
        return self._slots > 0 and self._room >= reserved_tokens(candidate, self._rules)

    def take(self, candidate: Candidate) -> None:
        """Start the one whose turn it is."""
        rest = self._heads.pop(candidate)
        self._occupy(candidate)
        self._advance(rest)

    def _occupy(self, candidate: Candidate) -> None:
        request = candidate.answer.request
        self._slots -= 1
        self._room -= reserved_tokens(candidate, self._rules)
        self._running[request.caller] += 1
        self._owed[request.caller] += _owed(candidate, self._rules) / request.terms.weight
        self._has_low |= request.priority is Priority.LOW

    def _advance(self, line: Iterable[Candidate]) -> None:
        rest = iter(line)
        if (head := next(rest, None)) is not None:
            self._heads[head] = rest

    def _order(self, candidate: Candidate) -> tuple[bool, int, float, int, int]:
        answer = candidate.answer
        request = answer.request
        return (
            self._is_full(candidate),
            -self._rank(candidate),
            self._rules.served(request) + self._owed[request.caller],
            answer.resume.number,
            candidate.index,
        )

    def _is_full(self, candidate: Candidate) -> bool:
        """Whether as many of its caller run as may."""
        request = candidate.answer.request
        most = request.terms.max_running
        return most is not None and self._running[request.caller] >= most

    def _rank(self, candidate: Candidate) -> int:
        priority = candidate.answer.request.priority
        if priority is Priority.LOW and not self._has_low:
            return priority.rank + (candidate.answer.created_s < self._rules.raise_before)
        return priority.rank


def _expected(candidate: Candidate, rules: AdmissionRules) -> int:
    wanted = candidate.answer.request.max_tokens
    return rules.expected_tokens if wanted is None else min(wanted, rules.expected_tokens)


def _owed(candidate: Candidate, rules: AdmissionRules) -> int:
    """Return the tokens that a candidate is still expected to be served."""
    prompt = 0 if candidate.tokens else candidate.answer.prompt_tokens or 0
    return prompt + max(0, _expected(candidate, rules) - len(candidate.tokens))
