"""States that outlive an engine: the next one goes on with them as if it had computed them."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest
from attrs import evolve
from lmx_gguf_backend.settings import GgufSettings
from lmx_gguf_backend.states import identity_of

from lmx_kernel.engine import STATE_TOKENS, HasPortableStates
from lmx_kernel.prefixes.keys import PART_TOKENS
from lmx_kernel.testing.conformance.drafts import Foresight, FreeRows
from lmx_kernel.testing.driver import GREEDY
from lmx_kernel.testing.harness import running_kernel
from lmx_kernel.testing.near_ties import is_near_tie
from lmx_kernel.testing.stored_states import StoredDriver, compare_conversations, greedy_answer

BLOCKS = 20
SETTINGS = GgufSettings(threads=1)


def tokens_of(seed: int, count: int) -> list[int]:
    dice = random.Random(seed)
    return [1] + [dice.randrange(3, 300) for _ in range(count - 1)]


PROMPT = tokens_of(1, BLOCKS * STATE_TOKENS + 10)
HALF = BLOCKS // 2 * STATE_TOKENS


def exported(driver, tokens: list[int], blocks: int = BLOCKS) -> list[bytearray]:
    """Return the states of the first blocks of ``tokens``, while they run."""
    driver.add(501, tokens)
    while driver.engine.states.computed(501) < len(tokens):
        driver.step()
    states = [
        driver.engine.states.export_block(501, block * STATE_TOKENS) for block in range(blocks)
    ]
    driver.engine.remove(501)
    return [bytearray(state) for state in states]


@pytest.mark.parametrize("cache_type", ["f16", "q8_0"])
def test_another_engine_goes_on_with_the_states_of_the_first(open_tiny, cache_type) -> None:
    one, other, plain = (open_tiny(cache_type=cache_type) for _ in range(3))
    assert isinstance(one.engine, HasPortableStates)
    states = exported(one, PROMPT)
    whole = PROMPT[: BLOCKS * STATE_TOKENS]
    other.add(1, tokens_of(9, 40))  # takes the low cells, and goes on meanwhile
    other.step()
    assert other.engine.states.held(PROMPT, "") == 1  # both begin with the same token
    assert other.engine.states.import_blocks(whole[:HALF], "", 0, states[: BLOCKS // 2])
    assert other.engine.states.held(PROMPT, "") == HALF
    assert other.engine.states.import_blocks(whole, "", HALF, states[BLOCKS // 2 :])
    other.add(2, PROMPT)
    [answer] = other.run(2, count=24)
    assert other.cached(2) == len(whole)
    assert answer == plain.answer(PROMPT, 24)
    assert other.engine.states.held(PROMPT, "x") == 0


def test_what_was_computed_for_wrong_drafts_is_in_no_state(open_tiny) -> None:
    one, other, plain = (open_tiny() for _ in range(3))
    one.engine._drafting.costs = FreeRows()
    prompt = tokens_of(4, 100)
    text = plain.answer(prompt, 130)
    one.add(1, prompt, drafts=Foresight([*prompt, *text], 1, errors=0.4))
    while len(one.tokens[1]) < 100:
        one.step()
    outputs = [output for step in one.steps for output in step.outputs]
    assert 0 < sum(one.accepted for one in outputs) < sum(one.drafted for one in outputs)
    tokens = [*prompt, *one.tokens[1][:100]]
    starts = range(0, 192, STATE_TOKENS)
    states = [bytearray(one.engine.states.export_block(1, start)) for start in starts]
    expected = plain.answer(tokens, 24)
    assert other.engine.states.import_blocks(tokens[:192], "", 0, states)
    other.add(2, tokens)
    [found] = other.run(2, count=24)
    assert other.cached(2) == 192
    assert found == expected or is_near_tie(plain, tokens, (expected, found), GREEDY)


def test_states_are_taken_over_on_top_of_what_was_parked(open_tiny) -> None:
    one, other, plain = open_tiny(), open_tiny(), open_tiny()
    states = exported(one, PROMPT)
    other.answer(PROMPT[:100], 4)
    while other.engine._prefixes.park_oldest():
        pass
    assert other.engine.states.held(PROMPT, "") == 100
    assert other.engine.states.import_blocks(PROMPT[: BLOCKS * STATE_TOKENS], "", 96, states[6:])
    other.add(2, PROMPT)
    assert other.run(2, count=24) == [plain.answer(PROMPT, 24)]
    assert other.cached(2) == BLOCKS * STATE_TOKENS


@pytest.mark.parametrize("rest", [8, STATE_TOKENS - 1])
def test_the_last_block_may_be_taken_over_in_part(open_tiny, rest) -> None:
    one, other, plain = (open_tiny() for _ in range(3))
    states = exported(one, PROMPT)
    begin = PROMPT[: (BLOCKS - 1) * STATE_TOKENS + rest]
    assert other.engine.states.import_blocks(begin[:HALF], "", 0, states[: BLOCKS // 2])
    assert other.engine.states.import_blocks(begin, "", HALF, states[BLOCKS // 2 :])
    for number, tokens in enumerate(([*begin, 5, 6], PROMPT)):
        assert other.engine.states.held(tokens, "") == len(begin)
        other.add(number, tokens)
        assert other.run(number, count=24) == [plain.answer(tokens, 24)]
        assert other.cached(number) == len(begin)
        other.engine.trim()
        assert other.engine.states.import_blocks(begin, "", 0, states)


def test_what_does_not_fit_or_is_no_state_is_refused_and_nobody_is_disturbed(open_tiny) -> None:
    driver, plain = open_tiny(cache=512), open_tiny(cache=512)
    states = exported(open_tiny(), PROMPT)
    whole = PROMPT[: BLOCKS * STATE_TOKENS]
    neighbour = tokens_of(9, 300)
    driver.add(1, neighbour)
    driver.step()
    used = driver.engine.stats().cache_tokens_used
    put = driver.engine.states.import_blocks
    assert not put(whole, "", 0, states)  # no room beside the neighbour
    wrong = [states[0][:1000], bytearray(b"\0" * 100), states[1], bytearray(len(states[0]))]
    for state in wrong:
        assert not put(whole[:STATE_TOKENS], "", 0, [state])
    assert not put(whole, "", STATE_TOKENS, states[1:])  # nobody holds what comes before
    assert driver.engine.stats().cache_tokens_used == used
    assert driver.run(1, count=12) == [plain.answer(neighbour, 12)]


def test_what_numbers_depend_on_is_part_of_the_identity() -> None:
    changes = ({"cache_type": "q8_0"}, {"flash_attention": False})
    others = {identity_of(evolve(SETTINGS, **change), 512) for change in changes}
    assert len({identity_of(SETTINGS, 512), identity_of(SETTINGS, 1024), *others}) == 4
    assert identity_of(evolve(SETTINGS, threads=7), 512) == identity_of(SETTINGS, 512)


@pytest.mark.parametrize("count", [1, pytest.param(100, marks=pytest.mark.full)])
def test_conversations_say_the_same_with_a_store(open_tiny, tmp_path: Path, count) -> None:
    """Each turn finds what it has on disk only."""
    driver = StoredDriver(open_tiny(context=1024).engine, tmp_path / "prefixes")
    found = compare_conversations(driver, open_tiny(context=1024), count, 300, driver.forget)
    assert not found.wrong
    assert found.ties <= found.equal // 20
    assert found.recomputed <= STATE_TOKENS
    assert driver.guard.figures()["prefix_hits_disk"] >= 2 * count
    assert driver.warnings == []


async def test_a_prompt_survives_unload_crash_and_restart(tiny_path: Path, tmp_path: Path) -> None:
    """Through real workers: the same greedy text, of which hardly anything is computed again."""
    folder = tmp_path / "models" / "model"
    folder.mkdir(parents=True)
    (folder / "model.gguf").symlink_to(tiny_path)
    plugins = ("lmx_gguf_backend.backend", "lmx_model_folders.plugin")
    config = "[gguf]\nthreads = 1\n[model_folders]\nhugging_face = false\nlm_studio = false\n"
    at_least = len(PROMPT) // PART_TOKENS * PART_TOKENS  # the last block is stored with the answer
    async with running_kernel(tmp_path, {}, config, plugins) as stage:
        text, cached = await greedy_answer(stage, PROMPT)
        assert cached == 0
        await stage.kernel.unload("model")
        assert await greedy_answer(stage, PROMPT) == (text, at_least)
        os.kill(stage.kernel.status().models[0].pid, signal.SIGKILL)
        assert await greedy_answer(stage, PROMPT) == (text, at_least)
    async with running_kernel(tmp_path, {}, config, plugins) as stage:
        assert await greedy_answer(stage, PROMPT) == (text, at_least)
