"""Prompts that begin alike are computed once, also over unloads, crashes and restarts."""

from __future__ import annotations

import asyncio
import random
import zlib

import pytest
from attrs import evolve
from structlog.testing import capture_logs

from lmx_kernel.engine import STATE_TOKENS
from lmx_kernel.prefixes import folder
from lmx_kernel.prefixes.keys import PART_TOKENS
from lmx_kernel.testing.fake_engine import WORDS
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import running_kernel, write_fake_models
from lmx_kernel.testing.stored_files import LOSSES, damage, stored, unload
from lmx_kernel.testing.stored_states import answer_to
from lmx_kernel.types import (
    GenerationRequest,
    LoadOverrides,
    SamplingRequest,
    TextPrompt,
)

SCRIPT = FakeModel(shares_prefixes=True, portable=True)
BEGIN = "".join(f"{number:07} " for number in range(100))  # a token a byte
BLOCKS = len(BEGIN) // STATE_TOKENS
WITHOUT_LAST = (len(BEGIN) - 1) // PART_TOKENS * PART_TOKENS


async def answer(stage, text, tokens=4, space=""):
    """Return what the model answers, and how much of the prompt was cached."""
    request = GenerationRequest(
        model="m",
        prompt=TextPrompt(text),
        sampling=SamplingRequest(temperature=0),
        max_tokens=tokens,
        cache_space=space,
    )
    return await answer_to(stage, request)


def right(text, tokens=4):
    """Return what the model answers if nothing goes wrong."""
    start = zlib.crc32(str(list(text.encode())).encode())
    return "".join(f" {(start + number) % WORDS}" for number in range(tokens))


async def until_stored(tmp_path, count):
    while len(stored(tmp_path)) < count:
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("loss", LOSSES)
async def test_a_prompt_goes_on_where_an_earlier_one_ended(tmp_path, loss):
    async with running_kernel(tmp_path, {"m": SCRIPT}) as stage:
        await answer(stage, BEGIN + "one")
        await until_stored(tmp_path, BLOCKS)
        await loss(stage)
        text, cached = await answer(stage, BEGIN + "two")
        assert cached >= BLOCKS * STATE_TOKENS
    assert text == right(BEGIN + "two")


@pytest.mark.parametrize("shared", [7, 8, STATE_TOKENS - 1])
async def test_a_prompt_that_leaves_another_within_a_block_shares_its_beginning(tmp_path, shared):
    """Within eight tokens of where it leaves."""
    begin = (BEGIN + BEGIN)[: BLOCKS * STATE_TOKENS + shared]
    async with running_kernel(tmp_path, {"m": SCRIPT}) as stage:
        await answer(stage, begin + "-" * 64)
        await until_stored(tmp_path, BLOCKS + 1)
        await unload(stage)
        for end in ("x", "y" * 60):
            text, cached = await answer(stage, begin + end)
            assert text == right(begin + end)
            assert cached >= (BLOCKS * STATE_TOKENS + shared) // PART_TOKENS * PART_TOKENS
        details = stage.kernel.status().models[0].engine.details
        assert details["prefix_hits_disk"] == 1


async def test_a_prompt_goes_on_after_a_restart_and_what_it_adds_is_stored(tmp_path):
    longer = BEGIN + BEGIN[::-1]
    write_fake_models(tmp_path, {"m": SCRIPT})
    for text, expected in ((BEGIN + "1", 0), (longer, len(BEGIN)), (longer + "2", len(longer))):
        async with running_kernel(tmp_path, {}) as stage:
            said, cached = await answer(stage, text)
            await stage.kernel.unload("m")
        assert cached == expected // STATE_TOKENS * STATE_TOKENS
        assert said == right(text)
    whole = len(longer) // STATE_TOKENS
    assert len(stored(tmp_path)) <= whole + 1  # each block once


async def test_an_answer_that_a_crash_interrupts_goes_on_with_what_is_stored(tmp_path):
    script = FakeModel(shares_prefixes=True, portable=True, crash_at=300, tokens_per_s=2000)
    async with running_kernel(tmp_path, {"m": script}) as stage:
        text, _ = await answer(stage, BEGIN, tokens=400)
        numbers = [int(word) for word in text.split()]
        assert numbers == [(numbers[0] + n) % 4096 for n in range(400)]
        engine = stage.kernel.status().models[0].engine
        assert engine.details["prefix_tokens_disk"] >= (BLOCKS - 1) * STATE_TOKENS
        assert engine.details["prefix_hits_disk"] == 1


async def test_spaces_share_nothing_on_disk_either(tmp_path):
    async with running_kernel(tmp_path, {"m": SCRIPT}) as stage:
        await answer(stage, BEGIN, space="a")
        await stage.kernel.unload("m")
        for space, expected in (("b", 0), ("", 0), ("a", WITHOUT_LAST)):
            assert (await answer(stage, BEGIN, space=space))[1] == expected


async def test_a_model_whose_file_changed_shares_nothing_with_what_it_was(tmp_path):
    async with running_kernel(tmp_path, {"m": SCRIPT}) as stage:
        await answer(stage, BEGIN)
        write_fake_models(tmp_path, {"m": evolve(SCRIPT, answer_tokens=99)})
        await stage.kernel.unload("m")
        await stage.kernel.rescan()
        assert await answer(stage, BEGIN) == (right(BEGIN), 0)


async def test_nothing_is_stored_where_that_is_switched_off(tmp_path):
    config = "[cache]\ndisk_bytes = 0\n"
    async with running_kernel(tmp_path, {"m": SCRIPT}, config) as stage:
        await answer(stage, BEGIN)
        await stage.kernel.unload("m")
        assert await answer(stage, BEGIN) == (right(BEGIN), 0)
    assert not (tmp_path / folder.FOLDER).exists()


@pytest.mark.parametrize("count", [10, pytest.param(200, marks=pytest.mark.full)])
async def test_whatever_is_done_to_the_files_no_text_changes(tmp_path, count):
    dice = random.Random(count)
    prompts = [(2 * BEGIN)[: 400 + 250 * n] + f"end {n}" for n in range(5)]
    expected = [right(prompt) for prompt in prompts]
    async with running_kernel(tmp_path, {"m": SCRIPT}) as stage:
        for round_ in range(count // 5):
            answers = [await answer(stage, prompt) for prompt in prompts]
            assert [text for text, _ in answers] == expected
            assert (answers[0][1] > 0) == (round_ > 0)  # the first block is never damaged
            await stage.kernel.unload("m")
            for entry in dice.sample([one for one in stored(tmp_path) if one.index > 16], 5):
                damage(dice, entry.path)


async def test_a_damaged_file_is_logged_once_and_the_rest_is_computed(tmp_path):
    async with running_kernel(tmp_path, {"m": SCRIPT}) as stage:
        await answer(stage, BEGIN)
        await stage.kernel.unload("m")
        (damaged,) = (entry for entry in stored(tmp_path) if entry.index == 20)
        damaged.path.write_bytes(b"not a state")
        with capture_logs() as lines:
            assert await answer(stage, BEGIN) == (right(BEGIN), 20 * STATE_TOKENS)
            await stage.kernel.unload("m")
        (line,) = (line for line in lines if line["event"] == "worker_warned")
        assert line["model"] == "m"
        assert damaged.path.name in line["warning"]
        assert await answer(stage, BEGIN) == (right(BEGIN), WITHOUT_LAST)


async def test_many_that_begin_alike_at_once_load_it_once(tmp_path):
    async with running_kernel(tmp_path, {"m": SCRIPT}) as stage:
        await answer(stage, BEGIN)
        await stage.kernel.unload("m")
        prompts = [f"{BEGIN}{number}" for number in range(6)]
        answers = await asyncio.gather(*(answer(stage, prompt) for prompt in prompts))
        assert all(cached >= BLOCKS * STATE_TOKENS for _, cached in answers)
        await stage.kernel.load("m", LoadOverrides())
        details = stage.kernel.status().models[0].engine.details
        sizes = [entry.size_bytes for entry in stored(tmp_path)]
        assert details["prefix_read_bytes"] <= sum(sizes)


async def test_a_short_prompt_is_not_stored(tmp_path):
    async with running_kernel(tmp_path, {"m": SCRIPT}) as stage:
        await answer(stage, "hello")
        await stage.kernel.unload("m")
    assert stored(tmp_path) == []


async def test_a_request_that_is_dropped_while_it_is_loaded_disturbs_nobody(tmp_path):
    async with running_kernel(tmp_path, {"m": SCRIPT}) as stage:
        await answer(stage, BEGIN)
        await stage.kernel.unload("m")
        request = GenerationRequest(model="m", prompt=TextPrompt(BEGIN), max_tokens=4)
        for _ in range(3):
            with await stage.kernel.generate(request) as dropped:
                await dropped.next()  # admitted
        text, cached = await answer(stage, BEGIN)
        assert text == right(BEGIN)
        assert cached
