"""Sampling against plain sums over the whole distribution."""

from __future__ import annotations

import math
from collections import Counter

import mlx.core as mx
import numpy as np
import pytest
from attrs import evolve
from lmx_mlx_backend.sampler import Kind, Table, choose, count_tokens, logprobs, top

from lmx_kernel.engine.sampling import uniform
from lmx_kernel.types import Sampling

PLAIN = Sampling(temperature=1, top_k=0, top_p=1, min_p=0, seed=0)
VOCABULARY = 5000


def logits_of(rows: int, seed: int = 0, spread: float = 2.0) -> mx.array:
    dice = np.random.default_rng(seed)
    return mx.array(dice.normal(0, spread, (rows, VOCABULARY)).astype(np.float32))


def expected(logits: np.ndarray, sampling: Sampling) -> np.ndarray:
    """Return the probability of each token, the plain way."""
    order = np.argsort(-logits)
    values = logits[order].astype(np.float64)
    kept = np.ones(len(values), bool)
    if sampling.top_k:
        kept[sampling.top_k :] = False
    weights = np.exp(values - values[0]) * kept
    kept &= np.cumsum(weights) - weights < sampling.top_p * weights.sum()
    if sampling.min_p:
        kept &= values >= values[0] + math.log(sampling.min_p)
    weights = np.exp((values - values[0]) / sampling.temperature) * kept
    result = np.zeros(len(values))
    result[order] = weights / weights.sum()
    return result


@pytest.mark.parametrize(
    "sampling",
    [
        evolve(PLAIN, temperature=0.5),
        evolve(PLAIN, min_p=0.05),
        evolve(PLAIN, top_k=40, top_p=0.95, min_p=0.05, temperature=0.8),
        evolve(PLAIN, top_p=0.5),
        evolve(PLAIN, top_k=300, top_p=0.9),
        evolve(PLAIN, top_k=2),
    ],
)
def test_draws_have_the_right_distribution(sampling: Sampling) -> None:
    """Draws at even distances over [0, 1) hit each token as often as its probability says."""
    count = 2000
    row = logits_of(1, seed=3)
    wanted = expected(np.array(row)[0], sampling)
    draws = [(i + 0.5) / count for i in range(count)]
    table = Table.of([sampling] * count)
    tokens = Counter(choose(mx.repeat(row, count, axis=0), table, draws, None).tolist())
    found = np.zeros(VOCABULARY)
    for token, times in tokens.items():
        found[token] = times / count
    assert np.abs(found - wanted).max() < 1.1 / count + 1e-4
    assert all(wanted[token] > 0 for token in tokens)


def test_greedy_takes_the_likeliest() -> None:
    logits = logits_of(3)
    for sampling in (evolve(PLAIN, temperature=0), evolve(PLAIN, top_k=1)):
        tokens = choose(logits, Table.of([sampling] * 3), [0.9] * 3, None)
        assert tokens.tolist() == mx.argmax(logits, axis=-1).tolist()


def test_rows_of_all_kinds_together_choose_as_alone() -> None:
    samplings = [
        evolve(PLAIN, top_p=0.7), evolve(PLAIN, temperature=0), evolve(PLAIN, top_k=20), PLAIN,
        evolve(PLAIN, top_k=64, presence_penalty=2.0), evolve(PLAIN, logit_bias={3: 50.0}),
        evolve(PLAIN, top_k=1), evolve(PLAIN, repetition_penalty=1.5, top_k=500),
    ]  # fmt: skip
    assert {Kind.of(sampling) for sampling in samplings} == set(Kind)
    logits, draws = logits_of(8, seed=5), [uniform(1, i) for i in range(8)]
    counts = mx.concatenate([count_tokens(list(range(i, 400)), 400, VOCABULARY) for i in range(8)])
    before = mx.array(logits)
    together = choose(logits, Table.of(samplings), draws, counts).tolist()
    alone = [
        choose(logits[i : i + 1], Table.of([s]), [draws[i]], counts[i : i + 1]).item()
        for i, s in enumerate(samplings)
    ]
    assert together == alone
    assert together[5] == 3
    assert mx.array_equal(logits, before)


@pytest.mark.parametrize("count", [1, 5, 64, 1024])
@pytest.mark.parametrize("size", [50, 777, 5000, 49152])
def test_the_likeliest_are_found(count: int, size: int) -> None:
    logits = mx.array(np.random.default_rng(size).normal(0, 1, (2, size)).astype(np.float32))
    found = np.array(top(logits, count))
    order = np.argsort(-np.array(logits), axis=-1)[:, :count]
    assert (found == order).all()


def test_penalties_by_count() -> None:
    logits = mx.zeros((1, 10)) + mx.array([[5.0, 4.9, 4.8, 1, 1, 1, 1, 1, 1, -1]])
    counts = count_tokens([0, 0, 0, 1], 4, 10)
    cases = {
        0: {}, 2: {"presence_penalty": 0.3}, 1: {"frequency_penalty": 0.06},
        3: {"repetition_penalty": 6.0, "logit_bias": {2: -100.0}},
    }  # fmt: skip
    for token, fields in cases.items():
        table = Table.of([evolve(PLAIN, temperature=0, **fields)])
        assert choose(logits, table, [0.0], counts).item() == token


def test_numbers_hang_on_seed_and_place_alone() -> None:
    numbers = [uniform(seed, place) for seed in range(30) for place in range(100)]
    assert len(set(numbers)) > 2990
    assert all(0 <= number < 1 for number in numbers)
    assert abs(sum(numbers) / len(numbers) - 0.5) < 0.02
    assert uniform(2**64 + 5, 1) == uniform(5, 1)


def test_log_probabilities_add_up() -> None:
    logits = logits_of(2)
    tokens = mx.argmax(logits, axis=-1)
    chosen, ids, values = logprobs(logits, tokens, VOCABULARY)
    assert ids[:, 0].tolist() == tokens.tolist()
    assert values[:, 0].tolist() == pytest.approx(chosen.tolist())
    assert mx.exp(values).sum(axis=-1).tolist() == pytest.approx([1, 1], abs=1e-4)


def test_a_draw_never_leaves_the_vocabulary() -> None:
    samplings = [PLAIN, evolve(PLAIN, top_k=5), evolve(PLAIN, top_p=0.9)]
    for value in (math.nan, math.inf, -math.inf):
        logits = mx.full((3, VOCABULARY), value)
        tokens = choose(logits, Table.of(samplings), [0.99999] * 3, None).tolist()
        assert all(0 <= token < VOCABULARY for token in tokens)
