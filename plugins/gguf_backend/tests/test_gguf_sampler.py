"""How tokens are chosen."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from lmx_kernel.engine.numpy_sampler import Sampler, logprobs, top
from lmx_kernel.engine.sampling import check_sampling, uniform
from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.types import Sampling

PLAIN = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


def row(size: int = 1000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, size).astype(np.float32)


def draws(logits: np.ndarray, count: int = 3000, **parameters) -> Counter:
    sampler = Sampler(Sampling(seed=5, **(PLAIN | parameters)), len(logits))
    return Counter(sampler.choose(logits.copy()) for _ in range(count))


def seen(tokens: list[int], produced: int = 0, **parameters) -> Sampler:
    sampler = Sampler(Sampling(seed=5, temperature=0, **parameters), 1000, produced)
    sampler.read(tokens)
    return sampler


def logits(**values: float) -> np.ndarray:
    """A row of -5, but for ``t7=1.0`` and the like."""
    array = np.full(1000, -5.0, np.float32)
    for name, value in values.items():
        array[int(name[1:])] = value
    return array


@pytest.mark.parametrize("size", [5, 300, 1000, 49152])
@pytest.mark.parametrize("count", [1, 5, 40, 400])
def test_top_is_exact(size: int, count: int) -> None:
    values = row(size)
    assert values[top(values, count)].tolist() == np.sort(values)[::-1][:count].tolist()


def test_top_with_equal_values() -> None:
    values = np.zeros(49152, np.float32)
    assert len(set(top(values, 40).tolist())) == 40


def test_temperature_zero_takes_the_likeliest() -> None:
    values = row()
    assert draws(values, 5, temperature=0) == {int(values.argmax()): 5}
    assert draws(values, 5, top_k=1) == {int(values.argmax()): 5}


def test_draws_follow_the_probabilities() -> None:
    values = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    shares = draws(values, 20_000)
    for token, share in enumerate([0.5, 0.3, 0.15, 0.05]):
        assert shares[token] / 20_000 == pytest.approx(share, abs=0.02)


def test_temperature_flattens_and_sharpens() -> None:
    values = np.log(np.array([0.8, 0.2], np.float32))
    assert draws(values, temperature=5.0)[1] > draws(values)[1] > draws(values, temperature=0.3)[1]


def test_top_k() -> None:
    values = row()
    assert set(draws(values, top_k=3)) == set(top(values, 3).tolist())


@pytest.mark.parametrize("top_k", [0, 4])
def test_top_p_keeps_the_fewest_that_reach_it(top_k: int) -> None:
    values = np.log(np.array([0.15, 0.5, 0.05, 0.3], np.float32))
    assert set(draws(values, top_p=0.6, top_k=top_k)) == {1, 3}
    assert set(draws(values, top_p=0.01, top_k=top_k)) == {1}


def test_top_p_of_a_flat_row_is_exact() -> None:
    values = row(5000) / 100
    order = np.argsort(-values)
    shares = np.exp(values[order]) / np.exp(values).sum()
    allowed = set(order[: int(np.searchsorted(shares.cumsum(), 0.9)) + 1].tolist())
    drawn = draws(values, top_p=0.9)
    assert set(drawn) <= allowed
    assert set(drawn) & set(order[3000:4000].tolist())


@pytest.mark.parametrize("top_k", [0, 4])
def test_min_p(top_k: int) -> None:
    values = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    assert set(draws(values, min_p=0.5, top_k=top_k)) == {0, 1}


def test_draws_depend_on_seed_and_place_alone() -> None:
    values, sampling = row(), Sampling(seed=3, **PLAIN)
    whole = Sampler(sampling, 1000)
    tokens = [whole.choose(values.copy()) for _ in range(20)]
    resumed = Sampler(sampling, 1000, produced=12)
    assert [resumed.choose(values.copy()) for _ in range(8)] == tokens[12:]
    other = Sampler(Sampling(seed=4, **PLAIN), 1000)
    assert [other.choose(values.copy()) for _ in range(20)] != tokens


def test_uniform_is_uniform() -> None:
    numbers = [uniform(seed, index) for seed in range(50) for index in range(50)]
    assert min(numbers) >= 0
    assert max(numbers) < 1
    assert len(set(numbers)) == 2500
    assert np.histogram(numbers, 10, (0, 1))[0].min() > 200


def test_logit_bias() -> None:
    assert seen([], logit_bias={3: 100.0}).choose(logits(t7=9)) == 3
    assert seen([], logit_bias={7: -100.0}).choose(logits(t7=9, t8=1)) == 8
    assert seen([], logit_bias={7: 3e38}).choose(logits(t8=1)) == 7


def test_repetition_penalty_works_on_both_signs() -> None:
    assert seen([7], repetition_penalty=2.0).choose(logits(t7=3, t8=2)) == 8
    assert seen([7], repetition_penalty=2.0).choose(logits(t7=-2, t8=-3)) == 8


def test_presence_and_frequency_penalties() -> None:
    assert seen([7, 7, 7], presence_penalty=1.0).choose(logits(t7=3, t8=2.5)) == 8
    assert seen([7, 7, 7], presence_penalty=1.0).choose(logits(t7=3, t8=1.5)) == 7
    assert seen([7, 7, 7], frequency_penalty=1.0).choose(logits(t7=3, t8=0.5)) == 8
    assert seen([7], frequency_penalty=1.0).choose(logits(t7=3, t8=0.5)) == 7


def test_penalties_see_the_answer_and_the_end_of_the_prompt() -> None:
    penalty = {"presence_penalty": 9.0}
    far, near = [7] + [1] * 64, [7] + [1] * 63
    assert seen(far, **penalty).choose(logits(t7=3, t8=2)) == 7
    assert seen(near, **penalty).choose(logits(t7=3, t8=2)) == 8
    assert seen(far, produced=1, **penalty).choose(logits(t7=3, t8=2)) == 8
    sampler = seen([], presence_penalty=2.0)
    assert [sampler.choose(logits(t7=3, t8=2)) for _ in range(3)] == [7, 8, 7]


def test_a_resumed_sequence_has_the_same_penalties() -> None:
    prompt, penalty = list(range(100)), {"frequency_penalty": 0.7, "repetition_penalty": 1.2}
    rows = [row(seed=seed) for seed in range(30)]
    whole = seen(prompt, **penalty)
    tokens = [whole.choose(values.copy()) for values in rows]
    resumed = seen(prompt + tokens[:11], produced=11, **penalty)
    assert [resumed.choose(values.copy()) for values in rows[11:]] == tokens[11:]


def test_logprobs_are_ordered_and_sum_to_one() -> None:
    values = row()
    result = logprobs(values, 17, 1000)
    numbers = [number for _, number in result.top]
    assert numbers == sorted(numbers, reverse=True)
    assert np.exp(numbers).sum() == pytest.approx(1, abs=1e-4)
    assert dict(result.top)[17] == pytest.approx(result.chosen)
    assert logprobs(values, 17, 0).top == ()


@pytest.mark.parametrize(
    "parameters",
    [
        {"temperature": float("nan")},
        {"top_p": float("inf")},
        {"repetition_penalty": 0.0},
        {"logit_bias": {1000: 1.0}},
        {"logit_bias": {-1: 1.0}},
        {"logit_bias": {1: float("nan")}},
    ],
)
def test_meaningless_parameters_are_refused(parameters: dict) -> None:
    with pytest.raises(InvalidRequestError):
        check_sampling(Sampling(**parameters), 1000)


@pytest.mark.parametrize(
    "parameters",
    [{"temperature": 1e-30}, {"min_p": 1.0}, {"min_p": 7.0}, {"top_p": 0.0}, {"temperature": 1e30}],
)
def test_extreme_parameters_still_choose_a_token(parameters: dict) -> None:
    assert sum(draws(row(), 3, **parameters).values()) == 3
    assert sum(draws(row(), 3, **(parameters | {"top_k": 40})).values()) == 3
