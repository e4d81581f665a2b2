"""Whose fault a crash is: a request that crashes its worker dooms itself, and nobody else."""

from __future__ import annotations

import asyncio
import random

import pytest

from lmx_kernel import errors
from lmx_kernel.events import WorkerCrashed
from lmx_kernel.runtime.breaker import MAX_IN_A_ROW, Breaker
from lmx_kernel.runtime.instance import State
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import ask, running_kernel
from lmx_kernel.types import LoadOverrides, TextDelta

HEALTHY = 7
TOKENS = 30


def counts(few, full):
    return pytest.mark.parametrize("count", [few, pytest.param(full, marks=pytest.mark.full)])


async def generate(kernel, text, tokens=TOKENS):
    """Let a model answer, and check that no token is lost or doubled."""
    numbers = []
    with await kernel.generate(ask("m", text, max_tokens=tokens)) as answer:
        async for event in answer:
            if isinstance(event, TextDelta):
                numbers += [int(word) for word in event.text.split()]
    assert numbers == [(numbers[0] + n) % 4096 for n in range(tokens)]
    assert answer.usage().completion_tokens == tokens


@counts(2, 20)
@pytest.mark.parametrize("stage_of_crash", ["decode", "prefill", "prepare"])
@pytest.mark.timeout(1200)
async def test_a_poison_request_dooms_itself_and_nobody_else(tmp_path, stage_of_crash, count):
    """Wherever it crashes, and whatever it comes with. No round but the first starts afresh: that
    many poisons in a row are no outage either.
    """
    dice = random.Random(count)
    script = FakeModel(tokens_per_s=500, poison="POISON", poison_in=stage_of_crash)
    async with running_kernel(tmp_path, {"m": script}) as stage:
        for round_ in range(count):
            texts = [f"{round_} {n}" for n in range(HEALTHY)]
            texts.insert(dice.randrange(HEALTHY + 1), "POISON")
            results = await asyncio.gather(
                *(generate(stage.kernel, text) for text in texts), return_exceptions=True
            )
            outcome = dict(zip(texts, results, strict=True))
            poison = outcome.pop("POISON")
            assert isinstance(poison, errors.EngineCrashedError), poison
            assert set(outcome.values()) == {None}
        assert sum(crash.failed for crash in stage.seen(WorkerCrashed)) == count


async def test_a_poison_that_joins_streams_is_told_from_them_by_two_crashes(tmp_path):
    script = FakeModel(tokens_per_s=100, poison="POISON")
    async with running_kernel(tmp_path, {"m": script}) as stage:
        streams = [asyncio.ensure_future(generate(stage.kernel, str(n))) for n in range(HEALTHY)]
        await generate(stage.kernel, "first", 2)  # they run by now
        with pytest.raises(errors.EngineCrashedError):
            await generate(stage.kernel, "POISON")
        await asyncio.gather(*streams)
        crashes = [(crash.resumed, crash.failed) for crash in stage.seen(WorkerCrashed)]
        assert crashes == [(HEALTHY + 1, 0), (0, 1)]


@pytest.mark.parametrize("stage_of_crash", ["decode", "prefill", "prepare"])
async def test_who_comes_while_it_is_not_known_whose_fault_it_was_is_answered(
    tmp_path, stage_of_crash
):
    script = FakeModel(tokens_per_s=100, poison="POISON", poison_in=stage_of_crash)
    async with running_kernel(tmp_path, {"m": script}) as stage:
        texts = ["a", "POISON", "b"]
        early = [asyncio.ensure_future(generate(stage.kernel, text)) for text in texts]
        for crashes in (1, 2):
            await stage.until(WorkerCrashed, crashes)
            await generate(stage.kernel, f"late {crashes}")
        results = await asyncio.gather(*early, return_exceptions=True)
        assert [type(result) for result in results] == [
            type(None),
            errors.EngineCrashedError,
            type(None),
        ]


async def test_silence_dooms_nobody_at_first(tmp_path):
    """Streams that hang with the worker go on, though each was hit twice."""
    script = FakeModel(tokens_per_s=100, hang_at=20, times=2)
    config = "[models]\nhang_timeout_s = 2\n"
    async with running_kernel(tmp_path, {"m": script}, config) as stage:
        await asyncio.gather(*(generate(stage.kernel, str(n)) for n in range(4)))
        assert [crash.failed for crash in stage.seen(WorkerCrashed)] == [0, 0]


async def test_a_model_that_always_crashes_rests(tmp_path):
    script = FakeModel(crash_at=1, times=1000)
    async with running_kernel(tmp_path, {"m": script}) as stage:
        await stage.kernel.load("m", LoadOverrides())
        requests = 0
        while stage.instance("m").state is not State.COOLING:
            with pytest.raises(errors.EngineCrashedError):
                await generate(stage.kernel, str(requests))
            requests += 1
        assert len(stage.seen(WorkerCrashed)) <= MAX_IN_A_ROW
        with pytest.raises(errors.UnavailableError, match="left alone"):
            await generate(stage.kernel, "late")


def test_crashes_without_a_known_cause_rest_a_model_and_explained_ones_do_not():
    breaker = Breaker()
    for second in range(0, 100, 5):  # a poison each five seconds, by two crashes each
        assert not breaker.crashed(second, has_worked=True)
        assert not breaker.crashed(second + 1, has_worked=True, explained=2)
    assert [breaker.crashed(100 + n, has_worked=True) for n in range(3)] == [False, False, True]
    assert breaker.cooling_s(102) == 60


def test_a_model_with_which_nothing_works_any_more_rests_however_well_that_is_explained():
    breaker = Breaker()
    verdicts = [breaker.crashed(n * 100, explained=1) for n in range(MAX_IN_A_ROW)]
    assert verdicts == [False] * (MAX_IN_A_ROW - 1) + [True]
