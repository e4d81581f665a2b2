"""Which candidates start next: weighted fair queueing over callers."""

from __future__ import annotations

import random
import time
from collections import Counter

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmx_kernel.errors import QueueFullError, RateLimitedError
from lmx_kernel.runtime.admission import AdmissionRules, plan_admissions
from lmx_kernel.runtime.answer import LiveAnswer, Phase
from lmx_kernel.runtime.request_queue import RequestQueue
from lmx_kernel.runtime.shares import MAX_ACCOUNTS, Shares
from lmx_kernel.runtime.waiting import WaitingLines
from lmx_kernel.testing.harness import ask
from lmx_kernel.types import (
    Embedded,
    EmbeddingPrompt,
    EngineLimits,
    Priority,
    PromptProgress,
    Terms,
    TextDelta,
    TextPrompt,
)

LOW, NORMAL, HIGH = Priority
WEIGHTS = {"a": 1, "b": 2, "c": 4}


class Model:
    """A queue with its engine: what starts is served ``tokens`` and ends when it is told to."""

    def __init__(self, slots=8, cache=1_000_000, expected=10):
        self.lines, self.running, self.shares = WaitingLines(), [], Shares()
        self.served = Counter()
        self._limits = EngineLimits(context_length=1000, max_sequences=slots, cache_tokens=cache)
        self._expected, self._number = expected, 0

    def ask(self, *callers, weight=1.0, priority=NORMAL, **fields):
        """Queue a request of each caller, and return their candidates."""
        made = []
        for caller in callers:
            given = {"terms": Terms(weight=weight), "priority": priority, **fields}
            request = ask("m", caller=caller, **given)
            self.shares.enter(request)
            self._number += 1
            answer = LiveAnswer(request, "m", number=self._number)
            answer.resume.phase = Phase.PREPARED
            made += answer.resume.candidates
        self.lines.append(made)
        return made

    def plan(self, **rules):
        rules = {"expected_tokens": self._expected, **rules}
        rules = AdmissionRules(limits=self._limits, accounts=self.shares.accounts, **rules)
        return plan_admissions(self.lines.lines, self.running, rules)

    def start(self, **rules):
        """Start what may start, and return the callers of that."""
        plan = self.plan(**rules)
        for candidate in plan.starts:
            self.lines.remove(candidate)
            self.running.append(candidate)
            self.shares.start(candidate.answer.request)
        return "".join(one.answer.request.caller for one in plan.starts)

    def serve(self, candidate, tokens=10):
        """Let a candidate that runs say all it has to say."""
        request = candidate.answer.request
        self.running.remove(candidate)
        self.shares.charge(candidate.answer, TextDelta(0, "", (1,) * tokens))
        self.shares.leave(request)
        self.served[request.caller] += tokens


def test_a_single_caller_is_served_first_come_first_served():
    model = Model(slots=3)
    waiting = model.ask(*"aaaa")
    plan = model.plan()
    assert plan.starts == waiting[:3]
    assert plan.blocked is waiting[3]


def test_callers_take_turns_while_nothing_is_known_of_their_costs():
    model = Model(slots=6)
    model.ask(*"aaaabbc")
    assert model.start() == "abcaba"


def test_a_short_request_comes_right_after_a_huge_one_gives_up_one_slot():
    model = Model()
    model.ask(*"a" * 512)
    assert model.start() == "a" * 8
    model.ask("b")
    assert model.start() == ""
    model.serve(model.running[0])
    assert model.start() == "b"


def test_who_was_served_less_for_its_weight_is_next():
    model = Model(slots=1)
    model.ask("a", "a", "b", "b", weight=1.0)
    assert model.start() == "a"
    model.serve(model.running[0], tokens=30)
    assert model.start() == "b"
    model.serve(model.running[0], tokens=20)
    assert model.start() == "b"  # 20 are fewer than 30


def test_the_candidates_of_one_request_are_of_one_caller():
    model = Model(slots=3)
    many = model.ask("a", candidates=5)
    (other,) = model.ask("b")
    assert model.plan().starts == [many[0], other, many[1]]


def test_the_next_one_is_not_overtaken_while_it_waits_for_room():
    model = Model(cache=9)
    (large,) = model.ask("a", max_tokens=10)
    model.ask("b", "a", max_tokens=2)
    assert model.plan().starts == []
    assert model.plan().blocked is large


def test_priority_comes_before_shares_and_arrival():
    model = Model(slots=2)
    model.ask("a", priority=LOW)
    model.ask("b")
    model.ask("b", priority=HIGH)
    assert [one.answer.request.priority for one in model.plan().starts] == [HIGH, NORMAL]


def test_requests_that_waited_long_are_raised_one_at_a_time():
    model = Model(slots=2)
    for low in model.ask(*"aac", priority=LOW):
        low.answer._stopwatch.created -= 60
    model.ask(*"bbbb", weight=1000)
    aging = {"now_s": time.monotonic(), "raise_after_s": 60}
    assert model.start(**aging) == "ab"
    model.serve(model.running[1])
    assert model.start(**aging) == "b"


@pytest.mark.parametrize(
    ("priority", "waited_s", "first"),
    [(LOW, 59, "b"), (LOW, 60, "b"), (LOW, 120, "a"), (NORMAL, 59, "b"), (NORMAL, 60, "a")],
)
def test_a_request_is_raised_by_one_priority_after_the_other(priority, waited_s, first):
    model = Model(slots=1)
    model.ask("a", priority=priority)
    model.ask("b", priority=HIGH)
    assert model.start(now_s=time.monotonic() + waited_s, raise_after_s=60) == first


@pytest.mark.parametrize("priority", [LOW, NORMAL])
def test_nobody_starves_under_a_flood_of_high_requests(priority):
    """Ten requests of two callers each find an end while the queue never runs out of high ones."""
    model, began = Model(slots=2), time.monotonic()
    model.ask(*"ababababab", priority=priority)
    ended = 0
    for step in range(400):
        while len(list(model.lines)) - (10 - ended) < 4:
            model.ask(*"cd", priority=HIGH)
        model.start(now_s=began + step, raise_after_s=60)
        oldest = model.running[0]
        model.serve(oldest)
        ended += oldest.answer.request.priority is priority
        if ended == 10:
            break
    assert step < 120 + 6 * 10, "from 120 s on, one of them is always among the two that run"


def test_no_more_of_a_caller_run_than_its_key_allows():
    bounded = Model(slots=4)
    for _ in range(3):
        bounded.ask("a", terms=Terms(max_running=2))
    assert bounded.start() == "aa"
    assert bounded.plan().blocked is None
    bounded.ask("b")
    assert bounded.start() == "b"


def test_an_idle_caller_saves_up_nothing():
    model = Model(slots=1)
    model.ask(*"a" * 30)
    for _ in range(10):
        model.start()
        model.serve(model.running[0])
    model.ask(*"b" * 10)
    got = []
    for _ in range(10):
        got += model.start()
        model.serve(model.running[0])
    assert 4 <= got.count("b") <= 6


def test_only_tokens_that_were_computed_cost_something():
    shares, request = Shares(), ask("m", caller="a", priority=NORMAL)
    shares.enter(request)
    answer, account = LiveAnswer(request, "m"), shares.accounts["a"]
    shares.charge(answer, PromptProgress(0, processed=90, total=100, cached=80))
    assert account.served[NORMAL] == 0
    shares.charge(answer, PromptProgress(0, processed=100, total=100, cached=80))
    assert (account.served[NORMAL], account.prompt_tokens) == (20, 20)
    said = TextDelta(0, "", (1,) * 5)
    answer.receive(said)
    shares.charge(answer, said)
    shares.charge(answer, PromptProgress(0, processed=105, total=105, cached=0))
    assert account.served[NORMAL] == 25, "a resume is not its caller's wish"


def test_prompts_of_embeddings_cost_what_they_have():
    shares = Shares()
    request = attrs.evolve(ask("m", caller="a"), prompt=EmbeddingPrompt((TextPrompt("x"),)))
    shares.enter(request)
    answer = LiveAnswer(request, "m")
    answer.admit(7)
    shares.charge(answer, Embedded(0, (b"",)))
    assert shares.accounts["a"].prompt_tokens == shares.accounts["a"].spent == 7


@settings(deadline=None)
@given(st.lists(st.sampled_from("abcc"), min_size=1, max_size=40), st.integers(1, 8))
def test_every_plan_uses_all_slots_and_keeps_the_order_of_each_caller(callers, slots):
    model = Model(slots=slots)
    waiting = model.ask(*callers)
    started = model.plan().starts
    assert len(started) == min(slots, len(callers))
    for caller in set(callers):
        own = [one for one in waiting if one.answer.request.caller == caller]
        got = [one for one in started if one.answer.request.caller == caller]
        assert got == own[: len(got)]
    runs = Counter(one.answer.request.caller for one in started)
    left = Counter(callers) - runs
    assert all(runs[one] >= max(runs.values()) - 1 for one in left), "who waits had its turns"


@settings(deadline=None, max_examples=20)
@given(st.randoms(use_true_random=False), st.integers(1, 8))
def test_busy_callers_are_served_by_weight_whatever_their_answers_cost(dice, slots):
    model = Model(slots=slots, expected=30)
    most = 60
    for caller, weight in WEIGHTS.items():
        for _ in range(400):
            model.ask(caller, weight=weight)
    for _ in range(300):
        model.start()
        model.serve(dice.choice(model.running), dice.randint(1, most))
    shares = [model.served[caller] / weight for caller, weight in WEIGHTS.items()]
    assert max(shares) - min(shares) <= 2 * slots * most, "the bound is that of VTC"


@settings(deadline=None)
@given(st.lists(st.sampled_from([LOW, NORMAL, HIGH]), min_size=1, max_size=30))
def test_nothing_starts_before_what_has_a_higher_priority(priorities):
    model = Model(slots=4)
    for number, priority in enumerate(priorities):
        model.ask("abc"[number % 3], priority=priority)
    ranks = [one.answer.request.priority.rank for one in model.plan().starts]
    assert ranks == sorted((one.rank for one in priorities), reverse=True)[:4]


# --- bounds of keys


def test_a_key_that_has_had_its_tokens_is_told_when_to_come_back():
    now = [100.0]
    shares = Shares(lambda: now[0])
    request = ask("m", caller="a", terms=Terms(tokens_per_minute=60))
    shares.enter(request)
    shares.charge(LiveAnswer(request, "m"), TextDelta(0, "", (1,) * 70))
    with pytest.raises(RateLimitedError) as refused:
        shares.enter(request)
    assert refused.value.retry_after_s == 11
    now[0] += 11
    shares.enter(request)


def test_a_key_has_no_more_requests_waiting_than_it_may():
    queue = RequestQueue()
    request = ask("m", caller="a", terms=Terms(max_waiting=2), candidates=3)
    for number in range(2):
        queue.check_room(request, "m", 256)
        queue.add(LiveAnswer(request, "m", number=number))
    with pytest.raises(QueueFullError, match="2 requests of a wait"):
        queue.check_room(request, "m", 256)
    queue.check_room(ask("m", caller="b"), "m", 256)


def test_a_queue_full_of_lower_requests_refuses_nobody_above_them():
    queue = RequestQueue()
    for number, priority in enumerate((LOW, LOW, NORMAL)):
        queue.add(LiveAnswer(ask("m", priority=priority), "m", number=number))
    with pytest.raises(QueueFullError, match="3 requests wait"):
        queue.check_room(ask("m", priority=LOW), "m", 3)
    queue.check_room(ask("m", priority=NORMAL), "m", 2)
    with pytest.raises(QueueFullError, match="1 requests wait"):
        queue.check_room(ask("m", priority=NORMAL), "m", 1)
    queue.check_room(ask("m", priority=HIGH), "m", 1)


def test_what_is_kept_of_callers_is_bounded():
    shares = Shares()
    for number in range(2 * MAX_ACCOUNTS):
        for name in (f"key{number}", f"#{number}"):
            request = ask("m", caller=name)
            shares.enter(request)
            shares.leave(request)
    assert len(shares.accounts) == MAX_ACCOUNTS
    assert not any(name.startswith("#") for name in shares.accounts)


# --- lines


def test_a_line_is_left_in_any_order_and_entered_at_its_head():
    model, dice = Model(), random.Random(3)
    waiting = model.ask(*"abcabcabc", candidates=2)
    for candidate in dice.sample(waiting, len(waiting)):
        model.lines.remove(candidate)
    assert not model.lines
    model.lines.append(waiting[6:])
    model.lines.put_first(waiting[:6])
    model.lines.remove_all(waiting[2].answer)
    for caller in "ac":  # waiting[2] is of b
        own = [one for one in waiting if one.answer.request.caller == caller]
        assert [one for one in model.lines if one in own] == own
    assert not [one for one in model.lines if one.answer is waiting[2].answer]
