"""Who is put out for a request of higher priority: a pure decision."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from lmx_kernel.runtime.admission import AdmissionRules, cost_tokens, raised_rank
from lmx_kernel.runtime.answer import Candidate, LiveAnswer
from lmx_kernel.types import EmbeddingPrompt


@frozen(kw_only=True)
class PreemptionRules:
    """How far a request is protected.

    :param max_preemptions: a request is put out at most so many times.
    :param min_run_s: and runs at least so long before it is put out again, in seconds. One that was
        never put out may be at once: otherwise a request of high priority would wait for so long
        wherever all others have just begun.
    """

    max_preemptions: int
    min_run_s: float


@frozen
class Preemption:
    """What is done for a request that found no room.

    :param victims: the requests that are put out for it.
    :param retry_in_s: without victims, when there may be some; None is not before something else
        changes.
    """

    victims: tuple[LiveAnswer, ...] = ()
    retry_in_s: float | None = None


def plan_preemption(
    blocked: Candidate,
    running: Sequence[Candidate],
    admission: AdmissionRules,
    rules: PreemptionRules,
) -> Preemption:
    """Return who is put out for ``blocked``: the youngest of the lowest priority, and further ones
    in that order until there is room. If all of them would not make enough, nobody is.

    Embeddings are left alone: what is computed of them would be lost. So is one request that was
    raised to the priority of ``blocked``, since it waited for long (:class:`AdmissionRules`).
    """
    lower = _lower(blocked, running, admission, rules)
    if not lower:
        return Preemption()
    lower.sort(key=lambda one: (one.answer.request.priority.rank, -one.started_s))
    ripe_at_s = {
        one: one.started_s + (rules.min_run_s if one.answer.resume.preemptions else 0.0)
        for one in lower
    }
    ripe = [one for one in lower if ripe_at_s[one] <= admission.now_s]
    if victims := _enough(blocked, running, ripe, admission):
        return Preemption(victims)
    if _enough(blocked, running, lower, admission):
        next_s = min(ripe_at_s[one] for one in lower if one not in ripe)
        return Preemption(retry_in_s=next_s - admission.now_s)
    return Preemption()


def _lower(
    blocked: Candidate,
    running: Sequence[Candidate],
    admission: AdmissionRules,
    rules: PreemptionRules,
) -> list[Candidate]:
    """Return those that run and may be put out for ``blocked``, sooner or later."""
    rank = blocked.answer.request.priority.rank
    lower = [one for one in running if one.answer.request.priority.rank < rank]
    raised = [one for one in lower if _rank_at_start(one, admission) >= rank]
    spared = min(raised, key=lambda one: one.started_s).answer if raised else None
    return [
        one
        for one in lower
        if one.answer is not spared
        and one.answer.resume.preemptions < rules.max_preemptions
        and not isinstance(one.answer.request.prompt, EmbeddingPrompt)
    ]


def _rank_at_start(candidate: Candidate, rules: AdmissionRules) -> int:
    answer = candidate.answer
    waited_s = candidate.started_s - answer.created_s
    return raised_rank(answer.request.priority, waited_s, rules.raise_after_s)


def _enough(
    blocked: Candidate,
    running: Sequence[Candidate],
    offered: Sequence[Candidate],
    rules: AdmissionRules,
) -> tuple[LiveAnswer, ...]:
    """Return the first of the requests that are offered that make enough room; none if all of them
    do not.
    """
    left = [*running]
    needed = cost_tokens(blocked, rules)[0]
    victims = dict.fromkeys(one.answer for one in offered)
    for number, victim in enumerate(victims, 1):
        left = [one for one in left if one.answer is not victim]
        held = sum(cost_tokens(one, rules)[0] for one in left)
        if len(left) < rules.limits.max_sequences and held + needed <= rules.limits.cache_tokens:
            return tuple(victims)[:number]
    return ()
