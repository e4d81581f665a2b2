"""Models with recurrent layers: prompts go on from copies of whole states, in memory and in another
engine.
"""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest
from lmx_gguf_backend.whole_prefixes import TAIL, WORTH_SAVING

from lmx_kernel.testing.driver import GREEDY
from lmx_kernel.testing.harness import running_kernel
from lmx_kernel.testing.near_ties import is_near_tie
from lmx_kernel.testing.stored_states import StoredDriver, compare_conversations, greedy_answer


@pytest.fixture(params=["recurrent_path", "hybrid_path"])
def path(request) -> Path:
    return request.getfixturevalue(request.param)


@pytest.fixture
def open_one(open_tiny, path):
    return lambda cache=8192, **more: open_tiny(context=1000, cache=cache, path=path, **more)


def tokens_of(seed: int, count: int) -> list[int]:
    dice = random.Random(seed)
    return [1] + [dice.randrange(3, 300) for _ in range(count - 1)]


PROMPT = tokens_of(1, 400)
NEAR_END = len(PROMPT) - TAIL


def start(driver, number: int, tokens: list[int], **more) -> None:
    driver.add(number, tokens, **more)
    while not driver.tokens[number]:
        driver.step()


def same(plain, tokens: list[int], found: list[int]) -> bool:
    """Return whether an answer is what an engine without any states says, near-ties apart."""
    expected = plain.answer(tokens, len(found), cache_space=str(len(plain.tokens)))
    return found == expected or is_near_tie(plain, tokens, (expected, found), GREEDY)


def exported(driver, tokens: list[int]) -> tuple[int, bytearray]:
    states = driver.engine.states
    length = states.held(tokens, "")
    return length, bytearray(states.export_whole(tokens[:length], ""))


def test_prompts_go_on_from_what_is_kept_in_memory(open_one) -> None:
    driver, plain = open_one(), open_one()
    start(driver, 50, tokens_of(9, 40))  # runs beside all of it
    start(driver, 1, PROMPT)
    [said] = driver.run(1, count=12)
    assert same(plain, PROMPT, said)
    turn = [*PROMPT, *said, 5, 6, 7]
    for number, (tokens, cached) in enumerate(
        ((turn, len(PROMPT) + 11), (PROMPT, NEAR_END), (PROMPT[:NEAR_END], 0)), 2
    ):
        driver.add(number, tokens)
        [found] = driver.run(number, count=16)
        assert driver.cached(number) == cached
        assert same(plain, tokens, found)
    start(driver, 9, turn, cache_space="x")
    assert driver.cached(9) == 0
    driver.engine.trim()
    start(driver, 10, turn)
    assert driver.cached(10) == 0


def test_a_prompt_that_comes_meanwhile_waits_for_the_state_of_the_first(open_one) -> None:
    driver, plain = open_one(), open_one()
    others = [PROMPT, [*PROMPT[:-5], 9], tokens_of(3, 60)]
    for number, tokens in enumerate(others):
        driver.add(number, tokens)
    answers = driver.run(0, 1, 2, count=12)
    assert [driver.cached(number) for number in range(3)] == [0, NEAR_END, 0]
    assert all(same(plain, *pair) for pair in zip(others, answers, strict=True))


def test_the_oldest_states_make_room(open_one) -> None:
    driver = open_one(parallel=2, cache=1024)
    store = driver.engine._prefixes.store
    for seed in range(12):
        prompt = tokens_of(seed, 200)
        said = driver.answer(prompt, 2)
        assert store.parked_bytes <= store.budget_bytes
    assert 0 < len(store) < 24
    start(driver, 1, [*prompt, *said])
    assert driver.cached(1) == 201


def test_short_prompts_are_not_copied(open_one) -> None:
    driver = open_one()
    driver.answer(PROMPT[: WORTH_SAVING - 10], 4)
    assert driver.engine.stats().details["kept_prefixes"] == 0


def test_another_engine_goes_on_with_the_states_of_the_first(open_one) -> None:
    one, other, plain = open_one(), open_one(), open_one()
    start(one, 1, PROMPT)
    near_end = exported(one, PROMPT)
    [said] = one.run(1, count=12)
    turn = [*PROMPT, *said, 5, 6, 7]
    end = exported(one, turn)
    assert (near_end[0], end[0]) == (NEAR_END, len(PROMPT) + 11)
    start(other, 50, tokens_of(9, 40))
    for number, (tokens, (length, state)) in enumerate(((PROMPT, near_end), (turn, end))):
        assert other.engine.states.import_whole(tokens[:length], "", state)
        other.add(number, tokens)
        [found] = other.run(number, count=16)
        assert other.cached(number) == length
        assert same(plain, tokens, found)


def test_what_is_no_state_of_these_tokens_is_not_used(open_one) -> None:
    one, other, plain = open_one(), open_one(), open_one()
    start(one, 1, PROMPT)
    length, state = exported(one, PROMPT)
    put = other.engine.states.import_whole
    assert not put(PROMPT[:length], "", bytearray(100))
    zeros = bytearray(len(state))
    for number, wrong in enumerate((zeros, state[:-1], state + b"\0"), 2):
        other.engine.trim()
        put(PROMPT[:length], "", wrong)
        other.add(number, PROMPT)
        [found] = other.run(number, count=16)
        assert other.cached(number) == 0
        assert same(plain, PROMPT, found)
    other.engine.trim()
    assert put(PROMPT[: length - 1], "", state)  # of one token more than it says
    other.add(9, PROMPT)
    assert same(plain, PROMPT, other.run(9, count=16)[0])
    assert other.cached(9) == 0


def test_a_state_that_memory_is_not_planned_for_is_not_kept(open_tiny, recurrent_path) -> None:
    engine = open_tiny(path=recurrent_path).engine
    engine._prefixes.store.budget_bytes = 1000
    from lmx_gguf_backend.states import why_unportable

    assert "more memory" in why_unportable(engine._prefixes)


@pytest.mark.parametrize("count", [1, pytest.param(100, marks=pytest.mark.full)])
def test_conversations_say_the_same_with_a_store(open_one, tmp_path: Path, count) -> None:
    """Each turn finds what it has on disk only."""
    driver = StoredDriver(open_one().engine, tmp_path / "prefixes")
    found = compare_conversations(driver, open_one(), count, 300, driver.forget)
    assert not found.wrong
    assert found.ties <= found.equal // 20
    assert found.recomputed == 0
    assert driver.guard.figures()["prefix_hits_disk"] >= 2 * count
    assert driver.warnings == []


async def test_a_prompt_survives_unload_and_crash(hybrid_path: Path, tmp_path: Path) -> None:
    """Through real workers: the same greedy text, of which hardly anything is computed again."""
    folder = tmp_path / "models" / "model"
    folder.mkdir(parents=True)
    (folder / "model.gguf").symlink_to(hybrid_path)
    plugins = ("lmx_gguf_backend.backend", "lmx_model_folders.plugin")
    config = "[gguf]\nthreads = 1\n[model_folders]\nhugging_face = false\nlm_studio = false\n"
    async with running_kernel(tmp_path, {}, config, plugins) as stage:
        text, cached = await greedy_answer(stage, PROMPT)
        assert cached == 0
        await stage.kernel.unload("model")
        assert await greedy_answer(stage, PROMPT) == (text, NEAR_END)
        os.kill(stage.kernel.status().models[0].pid, signal.SIGKILL)
        assert await greedy_answer(stage, PROMPT) == (text, NEAR_END)
