"""The pure decisions: what is kept, what a step carries, with how many threads."""

from __future__ import annotations

import random

from lmx_gguf_backend.prefill import plan_prefill
from lmx_gguf_backend.prefill_budget import PrefillBudget
from lmx_gguf_backend.prefix import PrefixCache, distinct
from lmx_gguf_backend.threads import Threads

from lmx_kernel.engine.token_runs import common


def store(slots: int = 3, budget_bytes: int = 100) -> PrefixCache:
    return PrefixCache(range(4, 4 + slots), budget_bytes, cold_rows=10)


def test_common() -> None:
    dice = random.Random(1)
    for _ in range(200):
        length = dice.randrange(700)
        a = [dice.randrange(9) for _ in range(length + dice.randrange(50))]
        b = [*a[:length], -1, *a]
        assert common(a[: length + 1], b) == length
    assert common([], [1]) == 0
    assert common([1] * 600, [1] * 512) == 512


def test_distinct_counts_shared_prefixes_once() -> None:
    assert distinct([]) == 0
    assert distinct([("", [1, 2, 3]), ("", [1, 2, 4]), ("", [1, 2, 3, 5]), ("", [9])]) == 6
    assert distinct([("a", [1, 2, 3]), ("b", [1, 2, 3, 4])]) == 7, "spaces share nothing"


def test_the_longest_prefix_is_found() -> None:
    kept = store()
    short, long = kept.keep([1, 2], "", 0), kept.keep([1, 3, 4, 5], "", 0)
    assert kept.best([1, 2, 9], "") == (2, short)
    assert kept.best([1, 3, 4, 9], "") == (3, long)
    assert kept.best([7], "") is None


def test_nothing_is_kept_twice() -> None:
    kept = store()
    first = kept.keep([1, 2, 3], "", 0)
    assert kept.keep([1, 2], "", 5) is None
    assert first.used == 5
    assert kept.redundant([1, 2, 3, 4], "") == [first]
    assert kept.redundant([1, 2, 3], "") == []


def test_a_prefix_is_of_one_space_and_all_spaces_have_one_budget() -> None:
    kept = store(slots=2)
    ours, theirs = kept.keep([1, 2], "a", 0), kept.keep([1, 2, 3], "b", 8)
    assert kept.best([1, 2, 3], "a") == (2, ours)
    assert kept.best([1, 2, 3], "b") == (3, theirs)
    assert kept.best([1, 2, 3], "c") is None
    assert kept.redundant([1, 2, 3, 4], "a") == [ours]
    assert kept.is_full
    assert kept.oldest_hot() is ours
    kept.park(ours, memoryview(bytes(60)))
    kept.park(theirs, memoryview(bytes(60)))
    assert kept.best([1, 2], "a") is None, "the oldest state made room"


def test_hot_ones_cool_by_age() -> None:
    kept = store(slots=2)
    old, new = kept.keep([1], "", 0), kept.keep([2], "", 8)
    assert kept.is_full
    assert kept.cold(10) is None
    assert kept.cold(11) is old
    kept.park(old, memoryview(bytes(60)))
    assert not kept.is_full
    assert kept.best([1], "") == (1, old)
    assert kept.cold(19) is new
    kept.park(new, memoryview(bytes(60)))
    assert kept.best([1], "") is None, "the oldest state made room"
    assert kept.best([2], "") == (1, new)
    assert kept.parked_bytes == 60


def test_rows_go_to_the_first_prompts() -> None:
    assert plan_prefill([500, 20, 300], 64) == [64, 0, 0]
    assert plan_prefill([20, 300, 500], 64) == [20, 44, 0]
    assert plan_prefill([10, 20], 64) == [10, 20]
    assert plan_prefill([60, 500], 64) == [60, 0], "no pieces of a few rows"
    assert plan_prefill([], 64) == []


def test_a_step_carries_no_more_than_streams_can_bear() -> None:
    fast = PrefillBudget(row_s=0.0001, tile_row_s=0.0001)
    fast.observe(4, 0, 0.01)
    assert 256 <= fast.rows(4) <= 400
    slow = PrefillBudget(row_s=0.1, tile_row_s=0.1)
    slow.observe(1, 0, 0.1)
    assert slow.rows(1) == 8
    assert slow.rows(0) == 8


def test_streams_get_steps_of_their_own_after_a_long_piece() -> None:
    budget = PrefillBudget(row_s=0.005, tile_row_s=0.003)
    budget.observe(4, 0, 0.02)
    assert budget.rows(4) == 60
    budget.observe(4, 60, 0.2)
    rests = 0
    while not budget.rows(4):
        budget.observe(4, 0, 0.02)
        rests += 1
    assert 1 <= rests <= 4
    budget.observe(4, 60, 0.2)
    assert budget.rows(0) == 64, "nobody waits"


def test_crowded_cores_get_fewer_threads_for_a_while() -> None:
    threads = Threads(most=4)
    for _ in range(20):
        threads.observe(4, wall_s=0.01, cpu_s=0.038, now_s=1.0)
    assert threads.count(1.0) == 4
    for _ in range(8):
        threads.observe(threads.count(2.0), wall_s=0.01, cpu_s=0.02, now_s=2.0)
    assert threads.count(2.0) == 2
    assert threads.count(4.5) == 4, "tried again"


def test_a_gpu_is_not_taken_for_a_crowd() -> None:
    threads = Threads(most=4, adapts=False)
    for _ in range(20):
        threads.observe(4, wall_s=0.01, cpu_s=0.001, now_s=1.0)
    assert threads.count(1.0) == 4
