"""States of windows and of recurrent layers that outlive an engine: the next one goes on with them
as if it had computed them.
"""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import mlx.core as mx
import pytest
from lmx_mlx_backend.prefill import TAIL
from mlx_lm.models.cache import ArraysCache, KVCache, QuantizedKVCache, RotatingKVCache

from lmx_kernel.testing.harness import running_kernel
from lmx_kernel.testing.stored_states import StoredDriver, compare_conversations, greedy_answer

KINDS = ["gemma3_text", "mamba", "lfm2"]


def tokens_of(seed: int, count: int) -> list[int]:
    dice = random.Random(seed)
    return [0] + [dice.randrange(2, 250) for _ in range(count - 1)]


PROMPT = tokens_of(1, 300)
NEAR_END = range(len(PROMPT) - 2 * TAIL, len(PROMPT))


def start(driver, number: int, tokens: list[int]) -> None:
    driver.add(number, tokens)
    while not driver.tokens[number]:
        driver.step()


def exported(driver, tokens: list[int]) -> tuple[int, bytearray]:
    """Return the state that is kept of a beginning of ``tokens``, and how many it is of."""
    states = driver.engine.states
    length = states.held(tokens, "")
    return length, bytearray(states.export_whole(tokens[:length], ""))


@pytest.mark.parametrize("name", KINDS)
def test_another_engine_goes_on_with_the_states_of_the_first(open_model, name) -> None:
    """Kept while it decodes in a batch, and after it has left."""
    one, other, plain = (open_model(name) for _ in range(3))
    start(one, 1, tokens_of(5, 330))
    start(one, 2, PROMPT)
    near_end = exported(one, PROMPT)
    [said] = one.run(2, count=12)
    turn = [*PROMPT, *said, 5, 6, 7]
    end = exported(one, turn)
    assert near_end[0] in NEAR_END
    assert end[0] == len(PROMPT) + 11
    for number, (tokens, (length, state)) in enumerate(((PROMPT, near_end), (turn, end))):
        states = other.engine.states
        assert states.held(tokens, "") < length
        assert states.import_whole(tokens[:length], "", state)
        assert states.held(tokens, "") == length
        assert states.held(tokens, "x") == 0
        other.add(number, tokens)
        assert other.run(number, count=24) == [plain.answer(tokens, 24)]
        assert other.cached(number) == length


def test_of_a_window_that_is_not_full_all_but_the_last_token_is_kept(open_model) -> None:
    one, other, plain = (open_model("gemma3_wide") for _ in range(3))
    prompt = tokens_of(3, 50)
    start(one, 1, prompt)
    length, state = exported(one, prompt)
    assert length == 49
    assert other.engine.states.import_whole(prompt[:length], "", state)
    for number, tokens in enumerate((prompt, [*prompt[:30], 5])):
        other.add(number, tokens)
        assert other.run(number, count=24) == [plain.answer(tokens, 24)]
        assert other.cached(number) == len(tokens) - 1


@pytest.mark.parametrize("name", KINDS)
def test_what_is_no_state_of_the_model_is_refused(open_model, name) -> None:
    one, other = open_model(name), open_model(name)
    start(one, 1, PROMPT)
    length, state = exported(one, PROMPT)
    put = other.engine.states.import_whole
    for wrong in (state[:-1], state + b"\0", bytearray(), bytearray(100)):
        assert not put(PROMPT[:length], "", wrong)
    assert other.engine.states.held(PROMPT, "") == 0
    small = open_model(name, context=64, cache=64, parallel=1)
    if name != "mamba":  # the size of which does not depend on the tokens
        assert not put(PROMPT[: length - 1], "", state) or name == "gemma3_text"
        assert not small.engine.states.import_whole(PROMPT[:length], "", state)  # over its budget


def window_with_a_sink() -> list:
    return [RotatingKVCache(32, keep=4), KVCache()]


def part_filled() -> list:
    return [ArraysCache(3), KVCache()]


def quantized() -> list:
    return [QuantizedKVCache(), KVCache()]


@pytest.mark.parametrize("make", [window_with_a_sink, part_filled, quantized])
def test_caches_of_other_kinds_are_not_kept_and_it_is_said_why(
    open_model, models, monkeypatch, make
) -> None:
    from lmx_mlx_backend import worker

    class Strange:
        can_keep = True

        class module:
            @staticmethod
            def make_cache() -> list:
                return make()

            def __new__(cls, tokens, cache):
                for layer in cache:
                    if type(layer) is ArraysCache:
                        layer[0] = mx.zeros((1, 2, 64))
                    else:
                        layer.update_and_fetch(*(mx.zeros((1, 2, tokens.shape[1], 64)),) * 2)
                return mx.zeros((1, tokens.shape[1], 300))

    layout, why = worker._layout_of(Strange)
    assert layout is None
    assert why.startswith("its caches are not understood: a ")


@pytest.mark.parametrize("count", [1, pytest.param(70, marks=pytest.mark.full)])
@pytest.mark.parametrize("name", ["llama", "gemma3_text", "lfm2"])
def test_conversations_say_the_same_with_a_store(open_model, tmp_path: Path, name, count) -> None:
    """Each turn finds what it has on disk only."""
    driver = StoredDriver(open_model(name, context=1024).engine, tmp_path / "prefixes")
    plain = open_model(name, context=1024)
    found = compare_conversations(driver, plain, count, 250, driver.forget)
    assert not found.wrong
    assert found.ties <= found.equal // 20
    assert found.recomputed <= 64
    assert driver.guard.figures()["prefix_hits_disk"] >= 2 * count
    assert driver.warnings == []


async def unload(stage) -> None:
    await stage.kernel.unload("model")


async def kill(stage) -> None:
    os.kill(stage.kernel.status().models[0].pid, signal.SIGKILL)


async def test_a_prompt_survives_unload_and_crash(models, tmp_path: Path) -> None:
    """Through real workers: the same greedy text, of which hardly anything is computed again."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "model").symlink_to(models("lfm2"))
    plugins = ("lmx_mlx_backend.backend", "lmx_model_folders.plugin")
    config = '[mlx]\ndevice = "cpu"\n[model_folders]\nhugging_face = false\nlm_studio = false\n'
    async with running_kernel(tmp_path, {}, config, plugins) as stage:
        text, cached = await greedy_answer(stage, PROMPT)
        assert cached == 0
        await stage.kernel.unload("model")
        for lose in (unload, kill):
            await lose(stage)
            again, cached = await greedy_answer(stage, PROMPT)
            assert again == text
            assert cached in NEAR_END
