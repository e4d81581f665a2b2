"""Requests of higher priority put out those of lower ones, and nothing is lost."""

from __future__ import annotations

import pytest

from lmx_kernel.runtime.admission import AdmissionRules
from lmx_kernel.runtime.answer import LiveAnswer
from lmx_kernel.runtime.preemption import Preemption, PreemptionRules, plan_preemption
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import ask, running_kernel
from lmx_kernel.types import (
    EmbeddingPrompt,
    EngineLimits,
    Finished,
    Priority,
    Terms,
    TextDelta,
    TextPrompt,
)

LOW, NORMAL, HIGH = Priority
RULES = PreemptionRules(max_preemptions=3, min_run_s=2.0)
TERMS = Terms(priority=HIGH)


def candidate(priority, started_s=0.0, *, waited_s=0.0, preemptions=0, **fields):
    request = ask("m", priority=priority, **{"max_tokens": 10, **fields})
    answer = LiveAnswer(request, "m")
    answer._stopwatch.created, answer.resume.preemptions = started_s - waited_s, preemptions
    (made,) = answer.resume.candidates
    made.started_s = started_s
    return made


def plan(blocked, *running, now_s=10.0, slots=None, cache=10_000):
    limits = EngineLimits(
        context_length=1000, max_sequences=slots or len(running), cache_tokens=cache
    )
    rules = AdmissionRules(
        limits=limits, expected_tokens=10, accounts={}, now_s=now_s, raise_after_s=60
    )
    return plan_preemption(blocked, running, rules, RULES)


def test_the_youngest_of_the_lowest_priority_is_put_out():
    old, young = candidate(LOW, 1), candidate(LOW, 2)
    others = candidate(NORMAL, 7), candidate(HIGH, 7)
    assert plan(candidate(HIGH), old, young, *others) == Preemption((young.answer,))


def test_nobody_is_put_out_by_an_equal():
    assert plan(candidate(HIGH), candidate(HIGH)) == Preemption()
    assert plan(candidate(LOW), candidate(NORMAL)) == Preemption()


def test_what_was_put_out_runs_for_a_while_before_it_is_again():
    again = candidate(LOW, 9.5, preemptions=1)
    assert plan(candidate(HIGH), candidate(LOW, 9, preemptions=1), again).retry_in_s == 1
    older = candidate(LOW, 8, preemptions=1)
    assert plan(candidate(HIGH), older, again) == Preemption((older.answer,))


def test_what_was_never_put_out_is_put_out_at_once():
    """A high request does not wait for all others to grow old, as where all began together."""
    fresh = candidate(LOW, 10)
    assert plan(candidate(HIGH), candidate(LOW, 9), fresh) == Preemption((fresh.answer,))


def test_a_request_is_put_out_three_times_at_most():
    assert plan(candidate(HIGH), candidate(LOW, preemptions=3)) == Preemption()


def test_one_that_was_raised_is_left_alone_by_those_that_it_was_raised_to():
    raised = candidate(LOW, 5, waited_s=60)
    assert plan(candidate(NORMAL), raised) == Preemption()
    assert plan(candidate(HIGH), raised) == Preemption((raised.answer,))
    other = candidate(LOW, 6, waited_s=60)
    assert plan(candidate(NORMAL), raised, other) == Preemption((other.answer,)), "but one only"


def test_embeddings_are_left_alone():
    prompt = EmbeddingPrompt((TextPrompt("x"),))
    embedding = candidate(LOW)
    embedding.answer.request = type(embedding.answer.request)(
        model="m", prompt=prompt, priority=LOW
    )
    assert plan(candidate(HIGH), embedding) == Preemption()


def test_as_many_are_put_out_as_there_must_be_for_the_cache():
    running = [candidate(LOW, number) for number in range(4)]
    made = plan(candidate(HIGH, max_tokens=10), *running, slots=8, cache=45)
    assert made.victims == (running[3].answer,)
    large = candidate(HIGH)
    large.answer.admit(10)
    made = plan(large, *running, slots=8, cache=40)
    assert made.victims == (running[3].answer, running[2].answer)
    assert plan(large, *running, candidate(HIGH), slots=8, cache=25) == Preemption()


async def read(answer):
    text, reason = "", None
    async for event in answer:
        text += event.text if isinstance(event, TextDelta) else ""
        reason = event.reason if isinstance(event, Finished) else reason
    return text, reason


@pytest.mark.parametrize("candidates", [1, 2])
async def test_a_request_that_is_put_out_says_what_it_would_have_said(tmp_path, candidates):
    config = f"[models]\nparallel = {candidates}\n[queue]\nmin_run_s = 0\n"
    model = FakeModel(says="one two three four five six", tokens_per_s=50)
    async with running_kernel(tmp_path, {"m": model}, config) as stage:
        request = ask("m", priority=LOW, candidates=candidates, max_tokens=40)
        with await stage.kernel.generate(ask("m", candidates=candidates, max_tokens=40)) as answer:
            undisturbed = await read(answer)
        with await stage.kernel.generate(request) as low:
            async for event in low:
                if isinstance(event, TextDelta):
                    break
            first = event.text
            with await stage.kernel.generate(
                ask("m", priority=HIGH, terms=TERMS, max_tokens=3)
            ) as high:
                await read(high)
            assert low.outcome is None, "the high one ended first"
            assert low.resume.preemptions == 1
            rest, reason = await read(low)
    if candidates == 1:
        assert (first + rest, reason) == undisturbed
    assert len(first + rest) == len(undisturbed[0])
    assert low.usage().completion_tokens == answer.usage().completion_tokens
