"""What is decided about sequences, without an engine."""

from __future__ import annotations

import pytest

from lmx_kernel.engine import Progress, Sequence
from lmx_kernel.engine.running import MOST_FORCED, RunningSequence, RunningSet
from lmx_kernel.testing.mask import ScriptedMask
from lmx_kernel.types import EngineLimits, Sampling

LIMITS = EngineLimits(context_length=64, max_sequences=4, cache_tokens=100)


@pytest.fixture
def released():
    """Who was released, and whether their cache is sound."""
    return []


@pytest.fixture
def running(released):
    return RunningSet(LIMITS, 300, lambda one, is_sound: released.append((one.id, is_sound)))


@pytest.fixture
def add(running):
    def adder(number, tokens, done=0, **more):
        given = {"produced": 0, "sampling": Sampling(seed=1)} | more
        request = Sequence(id=number, tokens=[*tokens], **given)
        running.add(RunningSequence(request=request, done=done))
        return [*running][-1]

    return adder


def test_every_other_time_the_shortest_prompt_comes_first(running, add):
    long, short = add(1, [5] * 50), add(2, [5] * 10)
    assert running.in_turn([long, short]) == [long, short]
    assert running.in_turn([long, short]) == [short, long]
    assert running.in_turn([]) == []
    assert running.in_turn([long, short]) == [long, short]


def test_a_prompt_waits_for_older_ones_only(running, add):
    first, second = add(1, [1, 2, 3, 4]), add(2, [1, 2, 9])
    third = add(3, [1, 2, 3])
    assert [*running.older_prompts(first)] == []
    assert [*running.older_prompts(third)] == [(first, 2), (second, 2)], "never all of its tokens"
    first.done = 4
    assert [*running.older_prompts(third)] == [(second, 2)], "the first one is complete"
    assert [*running.older_prompts(add(4, [1, 2, 3], cache_space="x"))] == []


def test_the_youngest_leaves_when_the_cache_is_full_and_the_last_one_fails(running, released, add):
    first, second = add(1, [5]), add(2, [5])
    running.begin_step()
    assert running.make_room([first, second])
    assert not running.make_room([first])
    assert not running.make_room([])
    step = running.end_step()
    assert step.preempted == (2,)
    assert step.failed == ((1, "the cache of 100 tokens is full"),)
    assert released == [(2, True), (1, False)]
    assert len(running) == 0


def test_the_youngest_leave_until_the_others_fit_the_cache(running, add):
    oldest, second = add(1, [5] * 50, done=50), add(2, [5] * 40, done=10)
    assert not running.has_room_for(add(3, [5] * 10))
    assert running.has_room_for(oldest), "which always may"
    running.begin_step()
    running.fit_cache()
    running.give_out(oldest, (7,) * 12)
    assert running.end_step().preempted == ()
    running.begin_step()
    running.fit_cache()
    assert running.end_step().preempted == (2,)
    assert next(iter(running)) is oldest
    assert running.has_room_for([*running][1])
    assert second not in running


def test_a_full_context_fails_and_nothing_fails_twice(running, released, add):
    full, other = add(1, [5] * 65), add(2, [5] * 64)
    running.begin_step()
    running.fail(full, "again")
    running.fail(other, "another reason")
    running.fail(other, "again")
    step = running.end_step()
    assert step.failed == ((1, "its context is full"), (2, "another reason"))
    assert released == [(1, False), (2, False)]


def test_forced_tokens_stop_at_the_context_and_at_the_most_of_a_step(running, add):
    forced = [{n} for n in range(100, 200)]
    roomy = add(1, [5] * 10, mask=ScriptedMask(*forced))
    assert running.take_forced(roomy) == [*range(100, 100 + MOST_FORCED)]
    assert roomy.mask.accepted == [*range(100, 100 + MOST_FORCED)]
    tight = add(2, [5] * 62, mask=ScriptedMask(*forced))
    assert running.take_forced(tight, least=3) == []
    assert tight.mask.accepted == []
    assert running.take_forced(tight) == [100, 101], "and one that was just chosen"
    assert running.take_forced(add(3, [5], mask=ScriptedMask(*forced), logprobs=0)) == []
    assert running.take_forced(add(4, [5])) == []


def test_a_step_reports_tokens_and_progress(running, add):
    one = add(1, [5, 6, 7], done=2)
    one.cached = 1
    running.begin_step()
    running.report_progress(one)
    one.done = 3
    running.give_out(one, (8, 9))
    one.done = 5
    running.report_progress(one)
    step = running.end_step()
    assert step.progress == (Progress(1, 2, 3, 1), Progress(1, 3, 3, 1))
    assert [(output.id, output.tokens) for output in step.outputs] == [(1, (8, 9))]
    assert one.tokens == [5, 6, 7, 8, 9]
    assert running.end_step() == step
    running.begin_step()
    assert running.end_step().outputs == ()
