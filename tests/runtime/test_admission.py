"""Which candidates start next: callers take turns."""

from __future__ import annotations

import random
from collections import Counter

from lmx_kernel.runtime.admission import plan_admissions
from lmx_kernel.runtime.answer import LiveAnswer
from lmx_kernel.testing.harness import ask
from lmx_kernel.types import EngineLimits


def candidates(*callers, **fields):
    """Return a candidate of a request of its own for each caller."""
    requests = [ask("m", caller=caller, **fields) for caller in callers]
    return [LiveAnswer(request, "m").resume.candidates[0] for request in requests]


def limits(slots, cache=1_000_000):
    return EngineLimits(context_length=1000, max_sequences=slots, cache_tokens=cache)


def plan(waiting, running=(), slots=8, cache=1_000_000):
    started = plan_admissions(waiting, running, limits(slots, cache), expected_tokens=10)
    return [candidate.answer.request.caller for candidate in started]


def test_a_single_caller_is_served_first_come_first_served():
    waiting = candidates(*"aaaa")
    assert plan_admissions(waiting, [], limits(3), 10) == waiting[:3]


def test_callers_take_turns():
    assert plan(candidates(*"aaaabbc"), slots=6) == [*"abcaba"]
    assert plan(candidates(*"abab"), slots=4) == [*"abab"]


def test_who_runs_less_is_next():
    running = candidates(*"aaab")
    assert plan(candidates(*"aabbc"), running, slots=8) == [*"cbba"]
    assert plan(candidates(*"aab"), running, slots=5) == ["b"]
    assert plan(candidates(*"aab"), running, slots=4) == []


def test_a_short_request_comes_right_after_a_huge_one_gives_up_one_slot():
    running = candidates(*"a" * 8)
    waiting = candidates(*"a" * 504, "b")
    assert plan(waiting, running) == []
    assert plan(waiting, running[1:]) == ["b"]


def test_the_candidates_of_one_request_are_of_one_caller():
    many = LiveAnswer(ask("m", caller="a", candidates=5), "m").resume.candidates
    assert plan([*many, *candidates("b")], slots=3) == [*"aba"]
    assert [one.index for one in plan_admissions(many, [], limits(3), 10)] == [0, 1, 2]


def test_the_next_one_is_not_overtaken_while_it_waits_for_room():
    large, small = candidates("a", max_tokens=10), candidates("b", "a", max_tokens=2)
    assert plan([*large, *small], cache=9) == []
    assert plan([*small, *large], cache=9) == [*"ba"]


def test_every_plan_is_fair_and_keeps_the_order_of_each_caller():
    dice = random.Random(7)
    for _ in range(300):
        running = candidates(*dice.choices("abc", k=dice.randrange(6)))
        waiting = candidates(*dice.choices("abcd", k=dice.randrange(20)))
        started = plan_admissions(waiting, running, limits(8), expected_tokens=10)
        assert len(started) == min(8 - len(running), len(waiting))
        runs = Counter(one.answer.request.caller for one in running)
        left = [*waiting]
        for candidate in started:
            fewest = min(runs[one.answer.request.caller] for one in left)
            first = next(one for one in left if runs[one.answer.request.caller] == fewest)
            assert candidate is first
            runs[candidate.answer.request.caller] += 1
            left.remove(candidate)
