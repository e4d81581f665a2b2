"""Prompts of models whose states cannot be cut (sliding windows, recurrent layers): they go on from
near the end of an earlier prompt, or from the end of its answer, also in a new worker.
"""

from __future__ import annotations

import asyncio
import random
import zlib

import pytest
from structlog.testing import capture_logs

from lmx_kernel.testing.fake_engine import CHUNK, FIRST_WORD, WORDS
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import running_kernel
from lmx_kernel.testing.stored_files import LOSSES, damage, stored, unload
from lmx_kernel.types import GenerationRequest, SamplingRequest, TextDelta, TokenPrompt
from lmx_kernel.worker.snapshot_keeper import LEAST_TOKENS, MOST_IN_A_ROW

SCRIPT = FakeModel(shares_prefixes=True, portable=True, whole=True)
BEGIN = [number % 200 for number in range(700)]
NEAR_END = 700 // CHUNK * CHUNK
SAID = 8


async def answer(stage, prompt, tokens=SAID, space=""):
    """Return what the model answers, and how much of the prompt was cached."""
    request = GenerationRequest(
        model="m",
        prompt=TokenPrompt(tuple(prompt)),
        sampling=SamplingRequest(temperature=0),
        max_tokens=tokens,
        cache_space=space,
    )
    said = []
    with await stage.kernel.generate(request) as answer:
        async for event in answer:
            if isinstance(event, TextDelta):
                said += event.tokens
    return said, answer.usage().cached_tokens


def right(prompt, tokens=SAID):
    """Return what the model answers if nothing goes wrong."""
    start = zlib.crc32(str(list(prompt)).encode())
    return [FIRST_WORD + (start + number) % WORDS for number in range(tokens)]


async def until_stored(tmp_path, *lengths):
    while not {entry.index for entry in stored(tmp_path)} >= set(lengths):
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("loss", LOSSES)
async def test_the_same_prompt_and_the_next_turn_go_on_from_what_was_kept(tmp_path, loss):
    turn = [*BEGIN, *right(BEGIN), 7, 8, 9]
    other = [*BEGIN, 1, 2, 3]
    async with running_kernel(tmp_path, {"m": SCRIPT}) as stage:
        assert await answer(stage, BEGIN) == (right(BEGIN), 0)
        await until_stored(tmp_path, NEAR_END, 700 + SAID - 1)
        await loss(stage)
        assert await answer(stage, turn) == (right(turn), 700 + SAID - 1)
        for prompt in (BEGIN, other):
            assert await answer(stage, prompt) == (right(prompt), NEAR_END)


async def test_a_prompt_that_leaves_another_before_its_state_shares_nothing(tmp_path):
    async with running_kernel(tmp_path, {"m": SCRIPT}) as stage:
        await answer(stage, BEGIN)
        await unload(stage)
        cut = BEGIN[: NEAR_END - 1]
        assert await answer(stage, cut) == (right(cut), 0)
        assert await answer(stage, BEGIN, space="x") == (right(BEGIN), 0)


async def test_of_one_conversation_a_few_states_stay(tmp_path):
    prompt, cached = BEGIN, 0
    async with running_kernel(tmp_path, {"m": SCRIPT}) as stage:
        for _ in range(6):
            said, found = await answer(stage, prompt)
            assert (said, found) == (right(prompt), cached)
            cached = len(prompt) + SAID - 1
            prompt = [*prompt, *said, *range(100)]
            await unload(stage)
        lengths = sorted(entry.index for entry in stored(tmp_path))
        assert len(lengths) == MOST_IN_A_ROW
        assert lengths[0] == NEAR_END
        assert lengths[-1] == cached
        assert (await answer(stage, BEGIN))[1] == NEAR_END


async def test_short_prompts_and_what_is_there_already_are_not_stored(tmp_path):
    async with running_kernel(tmp_path, {"m": SCRIPT}) as stage:
        await answer(stage, BEGIN[:LEAST_TOKENS])
        await unload(stage)
        assert [entry.index for entry in stored(tmp_path)] == [LEAST_TOKENS + SAID - 1]
        for _ in range(2):
            await answer(stage, BEGIN)
            await unload(stage)
        sizes = {entry.index: entry.size_bytes for entry in stored(tmp_path)}
        assert len(sizes) == len(stored(tmp_path)) == 3


async def test_an_answer_that_a_crash_interrupts_goes_on_with_what_is_stored(tmp_path):
    script = FakeModel(
        shares_prefixes=True, portable=True, whole=True, crash_at=300, tokens_per_s=2000
    )
    async with running_kernel(tmp_path, {"m": script}) as stage:
        said, _ = await answer(stage, BEGIN, tokens=400)
        assert said == right(BEGIN, 400)
        engine = stage.kernel.status().models[0].engine
        assert engine.details["prefix_hits_disk"] == 1
        assert engine.details["prefix_tokens_disk"] == NEAR_END


@pytest.mark.parametrize("count", [10, pytest.param(200, marks=pytest.mark.full)])
async def test_whatever_is_done_to_the_files_no_text_changes(tmp_path, count):
    dice = random.Random(count)
    prompts = [BEGIN[: 400 + 60 * number] for number in range(5)]
    async with running_kernel(tmp_path, {"m": SCRIPT}) as stage:
        for _ in range(count // 5):
            for prompt in prompts:
                assert (await answer(stage, prompt))[0] == right(prompt)
            await unload(stage)
            for entry in dice.sample(stored(tmp_path), 5):
                damage(dice, entry.path)


async def test_a_model_whose_states_are_not_understood_says_so_once(tmp_path):
    script = FakeModel(shares_prefixes=True, whole=True)
    async with running_kernel(tmp_path, {"m": script}) as stage:
        with capture_logs() as lines:
            for _ in range(2):
                await answer(stage, BEGIN)
        (line,) = (line for line in lines if line["event"] == "worker_warned")
    assert line["warning"] == "its prefixes are not kept on disk: they are of no known kind"
    assert stored(tmp_path) == []
