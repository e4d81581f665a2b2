"""States that outlive an engine: the next one goes on with them as if it had computed them."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest

from lmx_kernel.engine import STATE_TOKENS, HasPortableStates
from lmx_kernel.prefixes.keys import PART_TOKENS
from lmx_kernel.testing.conformance.drafts import Foresight, FreeRows
from lmx_kernel.testing.harness import running_kernel
from lmx_kernel.testing.stored_states import greedy_answer

BLOCKS = 20


def tokens_of(seed: int, count: int) -> list[int]:
    dice = random.Random(seed)
    return [0] + [dice.randrange(2, 250) for _ in range(count - 1)]


PROMPT = tokens_of(1, BLOCKS * STATE_TOKENS + 10)
WHOLE = PROMPT[: BLOCKS * STATE_TOKENS]
HALF = BLOCKS // 2 * STATE_TOKENS


def exported(driver, number: int) -> list[bytearray]:
    states = driver.engine.states
    blocks = [states.export_block(number, block * STATE_TOKENS) for block in range(BLOCKS)]
    return [bytearray(block) for block in blocks]


@pytest.mark.parametrize(("ahead", "in_place"), [(False, True), (True, True), (True, False)])
def test_another_engine_goes_on_with_the_states_of_the_first(
    open_model, monkeypatch, ahead, in_place
) -> None:
    """Exported while it decodes in a batch of rows of other lengths, which are padded."""
    monkeypatch.setattr("lmx_mlx_backend.states.reads_in_place", lambda: in_place)
    one, other, plain = open_model(), open_model(), open_model()
    one.engine._steps.ahead = other.engine._steps.ahead = ahead
    assert isinstance(one.engine, HasPortableStates)
    expected = plain.answer(PROMPT, 24)
    one.add(1, tokens_of(5, 360))
    one.add(2, PROMPT)
    while min(map(len, one.tokens.values())) < 3:
        one.step()
    states = exported(one, 2)
    assert one.run(2, count=24) == [expected]  # undisturbed
    assert other.engine.states.import_blocks(WHOLE[:HALF], "", 0, states[: BLOCKS // 2])
    assert other.engine.states.held(PROMPT, "") == HALF
    assert other.engine.states.import_blocks(WHOLE, "", HALF, states[BLOCKS // 2 :])
    assert other.engine.states.held(PROMPT, "x") == 0
    other.add(3, PROMPT)
    assert other.run(3, count=24) == [expected]
    assert other.cached(3) == len(WHOLE)


def test_what_was_computed_for_wrong_drafts_is_in_no_state(open_model) -> None:
    """Of rows of a batch that kept unequal numbers of drafts."""
    one, other, plain = open_model(), open_model(), open_model()
    one.engine._steps.drafting.costs = FreeRows()
    prompts = [tokens_of(seed, 100 - 10 * seed) for seed in range(2)]
    texts = [plain.answer(tokens, 130) for tokens in prompts]
    for number, (tokens, text) in enumerate(zip(prompts, texts, strict=True)):
        one.add(number, tokens, drafts=Foresight([*tokens, *text], number, errors=0.4))
    while min(map(len, one.tokens.values())) < 100:
        one.step()
    outputs = [output for step in one.steps for output in step.outputs]
    assert 0 < sum(one.accepted for one in outputs) < sum(one.drafted for one in outputs)
    tokens = [*prompts[0], *texts[0][:100]]
    starts = range(0, 192, STATE_TOKENS)
    states = [bytearray(one.engine.states.export_block(0, start)) for start in starts]
    assert other.engine.states.import_blocks(tokens[:192], "", 0, states)
    other.add(2, tokens)
    assert other.run(2, count=24) == [texts[0][100:124]]
    assert other.cached(2) == 192


@pytest.mark.parametrize("rest", [8, STATE_TOKENS - 1])
def test_the_last_block_may_be_taken_over_in_part(open_model, rest) -> None:
    one, other, plain = (open_model() for _ in range(3))
    one.add(1, PROMPT)
    while not one.tokens[1]:
        one.step()
    states = exported(one, 1)
    begin = PROMPT[: (BLOCKS - 1) * STATE_TOKENS + rest]
    assert other.engine.states.import_blocks(begin[:HALF], "", 0, states[: BLOCKS // 2])
    assert other.engine.states.import_blocks(begin, "", HALF, states[BLOCKS // 2 :])
    for number, tokens in enumerate(([*begin, 5, 6], PROMPT)):
        other.add(number, tokens)
        assert other.run(number, count=24) == [plain.answer(tokens, 24)]
        assert other.cached(number) == len(begin)
        other.engine.trim()
        assert other.engine.states.import_blocks(begin, "", 0, states)
    assert not other.engine.states.import_blocks(PROMPT, "", 0, states)  # too few


def test_what_does_not_fit_or_is_no_state_is_refused(open_model) -> None:
    one = open_model()
    one.add(1, PROMPT)
    while not one.tokens[1]:
        one.step()
    states = exported(one, 1)
    put = open_model().engine.states.import_blocks
    assert not put(WHOLE[:STATE_TOKENS], "", 0, [states[0][:-1]])
    assert not put(WHOLE[:STATE_TOKENS], "", 0, [bytearray()])
    assert not put(WHOLE, "", STATE_TOKENS, states[1:])  # nobody holds what comes before
    small = open_model(context=64, cache=64, parallel=1)
    assert not small.engine.states.import_blocks(WHOLE, "", 0, states)  # over the budget


async def test_a_prompt_survives_unload_crash_and_restart(models, tmp_path: Path) -> None:
    """Through real workers: the same greedy text, of which hardly anything is computed again."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "model").symlink_to(models("llama"))
    plugins = ("lmx_mlx_backend.backend", "lmx_model_folders.plugin")
    config = '[mlx]\ndevice = "cpu"\n[model_folders]\nhugging_face = false\nlm_studio = false\n'
    async with running_kernel(tmp_path, {}, config, plugins) as stage:
        text, cached = await greedy_answer(stage, PROMPT)
        assert cached == 0
        expected = (text, len(PROMPT) // PART_TOKENS * PART_TOKENS)  # a block goes on in the answer
        await stage.kernel.unload("model")
        assert await greedy_answer(stage, PROMPT) == expected
        os.kill(stage.kernel.status().models[0].pid, signal.SIGKILL)
        assert await greedy_answer(stage, PROMPT) == expected
    async with running_kernel(tmp_path, {}, config, plugins) as stage:
        assert await greedy_answer(stage, PROMPT) == expected
