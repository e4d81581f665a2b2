"""The engine as its user sees it: tokens in, tokens out, whatever else is going on.

Models are tiny, random and in float32, so a text is the same alone and in a batch.
"""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
from attrs import evolve

from lmx_kernel.engine import Engine, Sequence
from lmx_kernel.errors import ContextOverflowError, InvalidRequestError
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
        driver.engine._ahead = request.param
        return driver

    return opener


@pytest.fixture
def driver(open_model):
    """An engine on the tiny llama."""
    return open_model()


PROMPTS = [tokens_of(seed, count) for seed, count in enumerate(LENGTHS)]


def test_is_an_engine(driver) -> None:
    assert isinstance(driver.engine, Engine)
    assert driver.engine.limits.max_sequences == 8
    assert len(driver.engine.tokenizer.token_bytes) == 300


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


def test_different_seeds_give_different_texts(driver) -> None:
    texts = {
        tuple(driver.answer(PROMPTS[0], 12, sampling=evolve(SEEDED, seed=s))) for s in range(5)
    }
    assert len(texts) == 5


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


def test_a_short_prompt_does_not_wait_for_a_long_one(open_model) -> None:
    driver = open_model(context=1024)
    driver.engine._budget.row_s = 1.0
    driver.add(1, tokens_of(1, 900))
    driver.add(2, PROMPTS[0])
    for _ in range(3):
        driver.step()
    assert driver.tokens[2]
    assert not driver.tokens[1]


def test_the_first_token_comes_with_the_last_piece(driver) -> None:
    driver.add(1, PROMPTS[0])
    step = driver.step()
    assert [output.id for output in step.outputs] == [1]
    assert [(p.processed, p.total, p.cached) for p in step.progress] == [(5, 5, 0)]


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
def shapes(driver, monkeypatch) -> list[tuple[int, int]]:
    """What the model of the driver is called with, as (rows, tokens of each)."""
    seen: list[tuple[int, int]] = []
    module = driver.engine._model.module

    def watched(tokens, cache):
        seen.append(tokens.shape)
        return module(tokens, cache=cache)

    monkeypatch.setattr(driver.engine._model, "module", Wrapped(module, watched))
    return seen


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


def test_prompts_that_fail_together_are_computed_one_by_one(driver, monkeypatch) -> None:
    prompts = [tokens_of(seed, count) for seed, count in enumerate((12, 9, 15))]
    alone = [driver.answer(prompt, 8, sampling=SEEDED) for prompt in prompts]
    driver.engine.trim()
    module, refused = driver.engine._model.module, []

    def lonely(tokens, cache):
        if min(tokens.shape) > 1:
            refused.append(tokens.shape)
            raise RuntimeError("no batches of prompts")
        return module(tokens, cache=cache)

    monkeypatch.setattr(driver.engine._model, "module", Wrapped(module, lonely))
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


def test_the_same_prompt_again_costs_one_token(driver) -> None:
    first = driver.answer(PROMPTS[2], 8)
    driver.add(1, PROMPTS[2])
    assert driver.run(1, count=8) == [first]
    assert driver.cached(1) == len(PROMPTS[2]) - 1


def test_a_sequence_waits_for_a_prefix_that_is_being_computed(driver) -> None:
    shared = tokens_of(1, 200)
    for number in range(4):
        driver.add(number, shared + tokens_of(number, 5))
    driver.run(*range(4), count=4)
    assert [driver.cached(number) for number in range(4)] == [0, 201, 201, 201]


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
    assert driver.cached(2) in (0, 68)  # before the last piece a copy was kept


def test_kept_prefixes_stay_within_their_budget(open_model) -> None:
    driver = open_model()
    store = driver.engine._store
    for seed in range(40):
        driver.answer(tokens_of(seed, 200), 2)
        assert store.size_bytes <= store.budget_bytes
    assert 0 < len(store) < 40
    store.budget_bytes = 0
    driver.answer(tokens_of(99, 200), 2)


def test_nothing_of_a_cancelled_prompt_is_kept(open_model) -> None:
    driver = open_model(context=1024)
    driver.engine._budget.row_s = 1.0
    driver.add(1, tokens_of(1, 500))
    driver.step()
    driver.engine.remove(1)
    assert driver.engine.stats().details["kept_prefixes"] == 0


# --- coming and going


@pytest.mark.parametrize("sampling", [GREEDY, SEEDED, evolve(SEEDED, repetition_penalty=1.4)])
def test_a_sequence_that_comes_back_goes_on_as_if_undisturbed(open_model, sampling) -> None:
    driver = open_model()
    whole = driver.answer(PROMPTS[1], 24, sampling=sampling)
    for produced in (1, 10, 23):
        engine = open_model()
        tokens = PROMPTS[1] + whole[:produced]
        rest = engine.answer(tokens, 24 - produced, produced=produced, sampling=sampling)
        assert rest == whole[produced:]


def test_the_youngest_is_put_out_when_the_cache_is_full(open_model) -> None:
    whole = open_model().answer(tokens_of(2, 100), 40)
    driver = open_model(cache=256)
    driver.add(1, tokens_of(1, 100))
    driver.add(2, tokens_of(2, 100))
    while not driver.steps or not driver.steps[-1].preempted:
        driver.step()
    assert driver.steps[-1].preempted == (2,)
    so_far = driver.tokens[2]
    driver.run(1, count=60)
    driver.add(3, tokens_of(2, 100) + so_far, produced=len(so_far))
    assert so_far + driver.run(3, count=40 - len(so_far))[0] == whole


def test_one_that_does_not_fit_alone_fails(open_model) -> None:
    driver = open_model(cache=64)
    driver.add(1, tokens_of(1, 60))
    while not driver.steps or not driver.steps[-1].failed:
        driver.step()
    assert driver.steps[-1].failed == ((1, "the cache of 64 tokens is full"),)


def test_cancelling_takes_effect_at_once(driver) -> None:
    for number in range(3):
        driver.add(number, PROMPTS[number])
    driver.step()
    driver.engine.remove(1)
    driver.engine.remove(1)
    driver.engine.remove(77)
    step = driver.step()
    assert all(output.id != 1 for output in step.outputs)
    driver.add(1, PROMPTS[3])
    assert len(driver.run(0, 1, 2, count=5)) == 3


@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        ({"tokens": [300]}, InvalidRequestError, "outside the vocabulary"),
        ({"tokens": [5, -1]}, InvalidRequestError, "outside the vocabulary"),
        ({"tokens": [1_000_000]}, InvalidRequestError, "outside the vocabulary"),
        ({"tokens": []}, InvalidRequestError, "at least one token"),
        ({"tokens": [5] * 513}, ContextOverflowError, "do not fit"),
        ({"produced": 2}, InvalidRequestError, "more tokens were produced"),
        ({"logprobs": -1}, InvalidRequestError, "logprobs"),
        ({"sampling": Sampling(temperature=math.nan)}, InvalidRequestError, "finite"),
        ({"sampling": Sampling(repetition_penalty=0)}, InvalidRequestError, "above 0"),
        ({"sampling": Sampling(logit_bias={300: 1.0})}, InvalidRequestError, "logit_bias"),
    ],
)
def test_what_cannot_be_computed_is_refused(driver, fields, error, text: str) -> None:
    given = {"id": 1, "tokens": [5], "produced": 0, "sampling": GREEDY} | fields
    with pytest.raises(error, match=text):
        driver.engine.add(Sequence(**given))
    assert len(driver.answer([5], 3)) == 3


def test_too_many_sequences_are_refused(open_model) -> None:
    driver = open_model(parallel=1)
    driver.add(1, [5])
    with pytest.raises(InvalidRequestError, match="1 sequences run already"):
        driver.engine.add(Sequence(id=2, tokens=[5], produced=0, sampling=GREEDY))


# --- trouble inside a step


def test_numbers_that_are_not_finite_fail_their_own_row(driver, monkeypatch) -> None:
    import mlx.core as mx

    module = driver.engine._model.module

    def poisoned(tokens, cache):
        logits = module(tokens, cache=cache)
        return mx.where((tokens == 13)[..., None], math.nan, logits)

    expected = driver.answer(PROMPTS[0], 8)
    monkeypatch.setattr(driver.engine._model, "module", Wrapped(module, poisoned))
    driver.add(1, PROMPTS[0])
    driver.add(2, [5, 6, 13])
    driver.step()
    assert driver.steps[-1].failed == ((2, "the model computed numbers that are not finite"),)
    assert driver.run(1, count=8) == [expected]


class Wrapped:
    """A model whose calls go elsewhere."""

    def __init__(self, module, call) -> None:
        self._module, self._call = module, call

    def __getattr__(self, name: str):
        return getattr(self._module, name)

    def __call__(self, tokens, cache):
        return self._call(tokens, cache)


def test_a_step_never_raises(driver, monkeypatch) -> None:
    module = driver.engine._model.module
    driver.add(1, PROMPTS[0])
    driver.add(2, PROMPTS[1])
    driver.step()
    driver.add(3, PROMPTS[2])

    def broken(tokens, cache):
        raise RuntimeError("out of memory\nand more")

    with monkeypatch.context() as patch:
        patch.setattr(driver.engine._model, "module", Wrapped(module, broken))
        step = driver.step()
    assert {number for number, _ in step.failed} == {1, 2, 3}
    assert step.failed[0][1] == "MLX could not compute it: out of memory"
    assert len(driver.answer(PROMPTS[3], 5)) == 5


# --- log-probabilities


def test_log_probabilities_are_given_to_those_that_asked(driver) -> None:
    driver.add(1, PROMPTS[0], logprobs=5)
    driver.add(2, PROMPTS[1])
    driver.add(3, PROMPTS[2], logprobs=0)
    driver.run(1, 2, 3, count=6)
    details = {n: [] for n in (1, 2, 3)}
    for step in driver.steps:
        for output in step.outputs:
            details[output.id] += output.logprobs
    assert details[2] == []
    for detail in details[3]:
        assert detail.top == ()
        assert detail.chosen < 0
    for token, detail in zip(driver.tokens[1], details[1], strict=False):
        numbers = [number for _, number in detail.top]
        assert len(numbers) == 5
        assert numbers == sorted(numbers, reverse=True)
        assert detail.top[0] == (token, pytest.approx(detail.chosen))
        assert sum(map(math.exp, numbers)) <= 1.0001


def test_log_probabilities_ignore_sampling(driver) -> None:
    biased = evolve(GREEDY, logit_bias={50: 100.0})
    driver.add(1, PROMPTS[0], logprobs=1, sampling=biased)
    driver.run(1, count=1)
    detail = driver.steps[-1].outputs[0].logprobs[0]
    assert driver.tokens[1] == [50]
    assert detail.top[0][0] != 50
    assert detail.chosen < detail.top[0][1]


def test_penalties_change_the_text(driver) -> None:
    plain = driver.answer([5, 5, 5, 5], 40)
    penalised = driver.answer([5, 5, 5, 5], 40, sampling=evolve(GREEDY, presence_penalty=50))
    assert len(set(plain)) < 40
    assert len({*penalised, 5}) == 41


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
