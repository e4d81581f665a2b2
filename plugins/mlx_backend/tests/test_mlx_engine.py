"""The engine as its user sees it: tokens in, tokens out, whatever else is going on.

Models are tiny, random and in float32, so a text is the same alone and in a batch.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from lmx_kernel.types import EngineSpec, LoadOptions, Sampling

GREEDY = Sampling(temperature=0, seed=1)
SEEDED = Sampling(temperature=0.9, seed=42)
LENGTHS = (5, 40, 100, 7, 33, 64, 20, 9)
BATCHED = ("llama", "gemma3_text", "mamba", "lfm2")


def tokens_of(seed: int, count: int) -> list[int]:
    dice = random.Random(seed)
    return [0] + [dice.randrange(2, 250) for _ in range(count - 1)]


@pytest.fixture(params=[False, True], ids=["", "ahead"])
def open_model(open_model, request: pytest.FixtureRequest):
    """Engines as on a CPU, and one step ahead as on a GPU."""

    def opener(*args, **more):
        driver = open_model(*args, **more)
        driver.engine._steps.ahead = request.param
        return driver

    return opener


@pytest.fixture
def driver(open_model):
    """An engine on the tiny llama."""
    return open_model()


PROMPTS = [tokens_of(seed, count) for seed, count in enumerate(LENGTHS)]


# --- batches


@pytest.mark.parametrize("name", BATCHED)
@pytest.mark.parametrize("sampling", [GREEDY, SEEDED])
def test_a_text_is_the_same_alone_and_among_others(open_model, name: str, sampling) -> None:
    """Full, sliding-window, recurrent and mixed caches; the window of 16 is passed by all."""
    driver = open_model(name)
    alone = [driver.answer(prompt, 24, sampling=sampling) for prompt in PROMPTS]
    driver = open_model(name)
    for number, prompt in enumerate(PROMPTS):
        driver.add(number, prompt, sampling=sampling)
    assert driver.run(*range(8), count=24) == alone
    assert len({tuple(answer) for answer in alone}) == 8


@pytest.mark.parametrize("name", BATCHED)
def test_sequences_join_and_leave_between_steps(open_model, name: str) -> None:
    driver = open_model(name)
    alone = [driver.answer(prompt, 30, sampling=SEEDED) for prompt in PROMPTS]
    driver = open_model(name)
    for number, prompt in enumerate(PROMPTS):
        driver.add(number, prompt, sampling=SEEDED)
        for _ in range(3):
            driver.step()
        if number % 3 == 2:  # every third joins and leaves again
            driver.engine.remove(number)
    staying = [number for number in range(8) if number % 3 != 2]
    assert driver.run(*staying, count=30) == [alone[number] for number in staying]
    assert driver.engine.stats().cache_tokens_used == 0


def test_eight_samplers_in_one_batch_do_not_touch_each_other(open_model) -> None:
    samplings = [
        GREEDY,
        SEEDED,
        Sampling(temperature=1, top_k=0, top_p=0.9, min_p=0, seed=1),
        Sampling(temperature=1, top_k=0, top_p=1, min_p=0, seed=2),
        Sampling(temperature=0.7, top_k=5, seed=3),
        Sampling(temperature=0.7, repetition_penalty=1.3, seed=4),
        Sampling(temperature=0, presence_penalty=3, frequency_penalty=1, seed=5),
        Sampling(temperature=0.9, logit_bias={7: 5.0, 9: -3.0}, seed=6),
    ]
    pairs = list(zip(PROMPTS, samplings, strict=True))
    driver = open_model()
    alone = [driver.answer(prompt, 24, sampling=sampling) for prompt, sampling in pairs]
    for number, (prompt, sampling) in enumerate(pairs):
        driver.add(number, prompt, sampling=sampling)
    assert driver.run(*range(8), count=24) == alone


def test_rows_of_like_length_share_a_batch(open_model) -> None:
    driver = open_model(context=1024, cache=8192)
    driver.engine._groups.padding_cells = 600
    for number, length in enumerate((20, 30, 25, 900)):
        driver.add(number, tokens_of(number, length))
    driver.run(3, count=1)
    driver.step()
    assert driver.engine.stats().details["batches"] == 1
    driver.add(9, tokens_of(9, 900))
    while not driver.tokens[9]:
        driver.step()
    assert driver.engine.stats().details["batches"] == 2
    driver.engine.remove(9)
    assert driver.engine.stats().details["batches"] == 1


# --- prompts


def test_long_prompts_come_in_pieces_beside_running_streams(open_model) -> None:
    driver = open_model(context=1024)
    alone = driver.answer(tokens_of(50, 900), 8)
    driver = open_model(context=1024)
    driver.add(1, PROMPTS[0])
    driver.run(1, count=1)
    driver.add(2, PROMPTS[1])
    driver.step()
    driver.engine._budget.row_s = 0.3 / 64
    driver.add(3, tokens_of(50, 900))
    before = len(driver.tokens[2])
    while not driver.tokens[3]:
        driver.engine._budget.row_s = 0.3 / 64
        driver.step()
    pieces = [p.processed for step in driver.steps for p in step.progress if p.id == 3]
    assert pieces[:3] == [64, 128, 192]
    assert pieces[-1] == 900
    assert len(driver.tokens[2]) - before >= len(pieces) - 2  # the last two are in one step
    assert driver.run(3, count=8) == [alone]


def test_a_prompt_and_answer_up_to_the_last_token_of_the_context(open_model) -> None:
    driver = open_model(context=64, cache=64)
    driver.add(1, tokens_of(1, 60))
    assert len(driver.run(1, count=5)[0]) == 5  # nothing is computed after the last one
    driver.add(2, tokens_of(2, 64))
    driver.run(2, count=1)
    driver.add(3, tokens_of(3, 60))
    while not driver.steps[-1].failed:
        driver.step()
    assert driver.steps[-1].failed == ((3, "its context is full"),)
    assert len(driver.tokens[3]) == 5


@pytest.fixture
def shapes(driver, wrap_module) -> list[tuple[int, int]]:
    """What the model of the driver is called with, as (rows, tokens of each)."""
    seen: list[tuple[int, int]] = []

    def watched(module, tokens, cache):
        seen.append(tokens.shape)
        return module(tokens, cache=cache)

    wrap_module(driver.engine, watched)
    return seen


def test_pieces_are_larger_while_no_stream_runs(driver, shapes) -> None:
    driver.engine._budget.row_s = 0.3 / 64
    driver.add(1, tokens_of(50, 400))
    driver.step()
    assert shapes == [(1, 128)]


def test_prompts_of_like_length_are_completed_together(driver, shapes) -> None:
    prompts = [tokens_of(seed, count) for seed, count in enumerate((12, 9, 40, 15, 44))]
    alone = [driver.answer(prompt, 12, sampling=SEEDED) for prompt in prompts]
    driver.engine.trim()
    driver.engine._budget.row_s = 1e-4
    shapes.clear()
    for number, prompt in enumerate(prompts):
        driver.add(number, prompt, sampling=SEEDED)
    step = driver.step()
    assert shapes == [(3, 15), (2, 44)]
    assert [output.id for output in step.outputs] == [1, 0, 3, 2, 4]
    assert {(p.id, p.processed, p.total) for p in step.progress} == {
        (number, len(prompt), len(prompt)) for number, prompt in enumerate(prompts)
    }
    assert driver.run(*range(5), count=12) == alone


def test_prompts_that_began_differently_are_completed_together(driver, shapes) -> None:
    """One goes on from a kept prefix, one is long and came in pieces, one is new."""
    started = tokens_of(1, 60)
    prompts = [started + tokens_of(2, 30), tokens_of(3, 130), tokens_of(4, 31)]
    alone = [driver.answer(prompt, 12) for prompt in prompts]
    driver.engine.trim()
    driver.answer(started, 1)
    driver.engine._budget.row_s = 1e-4
    shapes.clear()
    for number, prompt in enumerate(prompts):
        driver.add(number, prompt)
    driver.step()
    assert shapes == [(1, 98), (3, 32)]
    assert driver.run(0, 1, 2, count=12) == alone
    assert driver.cached(0) >= 59


def test_prompts_that_fail_together_are_computed_one_by_one(driver, wrap_module) -> None:
    prompts = [tokens_of(seed, count) for seed, count in enumerate((12, 9, 15))]
    alone = [driver.answer(prompt, 8, sampling=SEEDED) for prompt in prompts]
    driver.engine.trim()
    refused = []

    def lonely(module, tokens, cache):
        if min(tokens.shape) > 1:
            refused.append(tokens.shape)
            raise RuntimeError("no batches of prompts")
        return module(tokens, cache=cache)

    wrap_module(driver.engine, lonely)
    for number, prompt in enumerate(prompts):
        driver.add(number, prompt, sampling=SEEDED)
    assert driver.run(0, 1, 2, count=8) == alone
    assert refused == [(3, 15)]


# --- prefixes


def test_a_prefix_is_reused_and_changes_nothing(driver) -> None:
    shared = tokens_of(1, 120)
    prompts = [shared + tokens_of(seed, 9) for seed in (2, 3)]
    cold = [driver.answer(prompt, 12) for prompt in prompts]
    driver.engine._store.clear()
    driver.add(1, prompts[0])
    assert driver.run(1, count=12) == [cold[0]]
    driver.add(2, prompts[1])
    assert driver.run(2, count=12) == [cold[1]]
    assert [driver.cached(number) for number in (1, 2)] == [0, 121]  # both go on with a begin token


@pytest.mark.parametrize("name", ["gemma3_text", "mamba", "lfm2"])
def test_caches_that_cannot_be_trimmed_serve_only_what_goes_on(open_model, name: str) -> None:
    driver = open_model(name)
    prompt = tokens_of(1, 100)
    answer = driver.answer(prompt, 10)
    turn = [*prompt, *answer, *tokens_of(2, 30)]
    other = [*prompt[:90], *tokens_of(3, 30)]
    warm = []
    for number, tokens in enumerate((turn, other, prompt)):
        driver.add(number, tokens)
        warm += driver.run(number, count=10)
    driver.engine._store.clear()
    assert [driver.answer(tokens, 10) for tokens in (turn, other, prompt)] == warm
    assert driver.cached(0) in (109, 110)  # the last token is computed if the next one is
    assert driver.cached(1) <= 90
    assert driver.cached(2) <= 68  # before the last piece a copy was kept


def test_kept_prefixes_stay_within_their_budget(open_model) -> None:
    driver = open_model()
    store = driver.engine._store
    for seed in range(40):
        driver.answer(tokens_of(seed, 200), 2)
        assert store.size_bytes <= store.budget_bytes
    assert 0 < len(store) < 40
    store.budget_bytes = 0
    driver.answer(tokens_of(99, 200), 2)


# --- coming and going


def test_one_that_does_not_fit_alone_fails(open_model) -> None:
    driver = open_model(cache=64)
    driver.add(1, tokens_of(1, 60))
    while not driver.steps or not driver.steps[-1].failed:
        driver.step()
    assert driver.steps[-1].failed == ((1, "the cache of 64 tokens is full"),)


# --- trouble inside a step


def test_a_step_never_raises(driver, wrap_module, monkeypatch) -> None:
    driver.add(1, PROMPTS[0])
    driver.add(2, PROMPTS[1])
    driver.step()
    driver.add(3, PROMPTS[2])

    def broken(module, tokens, cache):
        raise RuntimeError("out of memory\nand more")

    wrap_module(driver.engine, broken)
    step = driver.step()
    monkeypatch.undo()
    assert {number for number, _ in step.failed} == {1, 2, 3}
    assert step.failed[0][1] == "MLX could not compute it: out of memory"
    assert len(driver.answer(PROMPTS[3], 5)) == 5


# --- models that cannot be batched


def test_a_model_whose_caches_cannot_be_batched_serves_one_at_a_time(
    open_model, monkeypatch
) -> None:
    from mlx_lm.models.cache import KVCache

    expected = open_model().answer(PROMPTS[0], 12)
    monkeypatch.delattr(KVCache, "merge")
    driver = open_model()
    assert driver.engine.limits.max_sequences == 1
    assert driver.answer(PROMPTS[0], 12) == expected
    assert driver.answer(PROMPTS[0], 12) == expected


def test_a_model_that_computes_rows_of_a_batch_wrongly_serves_one_at_a_time(
    open_model, monkeypatch
) -> None:
    from mlx_lm.models.base import create_causal_mask
    from mlx_lm.models.cache import BatchKVCache

    def without_padding(cache: BatchKVCache, length: int, **more):
        return create_causal_mask(length, offset=cache._idx)

    monkeypatch.setattr(BatchKVCache, "make_mask", without_padding)
    assert open_model().engine.limits.max_sequences == 1


def test_a_model_whose_caches_cannot_be_measured_shares_no_prefixes(
    open_model, monkeypatch
) -> None:
    from mlx_lm.models.cache import BatchKVCache, KVCache

    expected = open_model().answer(PROMPTS[2], 12)
    for kind in (KVCache, BatchKVCache):
        monkeypatch.delattr(kind, "nbytes")
    driver = open_model()
    assert [driver.answer(PROMPTS[2], 12) for _ in range(2)] == [expected, expected]
    assert driver.engine.stats().details["kept_prefixes"] == 0


def test_figures_of_memory(driver, models) -> None:
    driver.add(1, PROMPTS[2])
    driver.step()
    stats = driver.engine.stats()
    assert stats.memory_bytes == stats.details["active_bytes"] + stats.details["cached_bytes"]
    assert stats.cache_tokens_used == 100
    weights = (Path(models("llama")) / "model.safetensors").stat().st_size
    assert stats.details["active_bytes"] > 0.9 * weights
    assert stats.details["peak_bytes"] >= stats.details["active_bytes"]


def test_trimming_gives_back_what_serves_later_requests_only(driver) -> None:
    expected = driver.answer(PROMPTS[2], 24)
    for seed in range(8):
        driver.answer(tokens_of(seed, 300), 4)
    driver.add(1, PROMPTS[2])
    while len(driver.tokens[1]) < 8:
        driver.step()
    before = driver.engine.stats()
    driver.engine.trim()
    after = driver.engine.stats()
    assert after.details["kept_prefixes"] == 0
    assert after.details["cached_bytes"] == 0
    freed = before.details["kept_bytes"] + before.details["cached_bytes"]
    assert before.memory_bytes - after.memory_bytes >= 0.9 * freed > 0
    assert driver.run(1, count=24) == [expected]


def test_mlx_is_held_to_what_the_ledger_holds(models, card_of) -> None:
    import mlx.core as mx
    from lmx_mlx_backend.worker import lmx_open_engine

    options = LoadOptions(context_length=64, parallel=1, cache_tokens=64)
    spec = EngineSpec(card=card_of(models("llama")), options=options, memory_bytes=777 << 20)
    lmx_open_engine(spec, lambda *_: None).close()
    assert mx.set_memory_limit(1 << 30) == 777 << 20


def test_the_limit_of_wired_memory_is_left_alone(open_model, monkeypatch) -> None:
    import mlx.core as mx

    def refuse(limit: int) -> int:
        raise AssertionError("the wired limit was changed")

    monkeypatch.setattr(mx, "set_wired_limit", refuse)
    driver = open_model()
    assert len(driver.answer(PROMPTS[0], 4)) == 4
    driver.engine.close()
