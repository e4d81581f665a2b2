"""What runs does not stay behind cells that others have given back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from lmx_gguf_backend.compaction import Compaction
from lmx_gguf_backend.context import Context

from lmx_kernel.testing.driver import GREEDY, Driver
from lmx_kernel.testing.near_ties import is_near_tie

LONG = [[1, *(3 + (n * (7 + k)) % 290 for n in range(399))] for k in range(4)]
SHORT = [1, *range(5, 60)]


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collect the slots that states are brought back into."""
    slots: list[int] = []
    insert = Context.insert

    def noted(context: Context, slot: int, *more: Any) -> bool:
        slots.append(slot)
        return insert(context, slot, *more)

    monkeypatch.setattr(Context, "insert", noted)
    return slots


@pytest.fixture
def driver(open_tiny: Callable[..., Driver]) -> Driver:
    """An engine with one slot more than there are long sequences."""
    return open_tiny(parallel=5, cache=4096)


def fill(driver: Driver) -> None:
    for number, tokens in enumerate(LONG):
        driver.add(number, tokens)
    while not all(driver.tokens[number] for number in range(len(LONG))):
        driver.step()


def leave_alone_behind_gaps(driver: Driver) -> None:
    """Let sequence 9 run where all before it have gone."""
    fill(driver)
    driver.add(9, SHORT)
    while not driver.tokens[9]:
        driver.step()
    for number in range(len(LONG)):
        driver.engine.remove(number)


def test_a_stream_moves_forward_when_all_before_it_has_gone(
    driver: Driver, restored: list[int]
) -> None:
    expected = driver.answer(SHORT, 300)
    driver.engine.trim()
    leave_alone_behind_gaps(driver)
    answer = driver.run(9, count=300)[0]
    assert set(restored) == {4}, "its slot"
    assert len(restored) <= 6, "and once: it has so many blocks at most"
    if answer != expected:
        assert is_near_tie(driver, SHORT, (expected, answer), GREEDY)
    assert driver.engine.stats().details["parked_bytes"], "the others are parked, not lost"


def test_a_stream_whose_state_is_lost_on_the_way_is_computed_again(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_alone_behind_gaps(driver)
    monkeypatch.setattr(Context, "insert", lambda *_: False)
    step = driver.engine.step()
    while not step.preempted:
        assert not step.failed
        step = driver.engine.step()
    assert list(step.preempted) == [9], "the daemon adds it again"


def test_nothing_moves_where_the_cache_was_never_full(driver: Driver, restored: list[int]) -> None:
    assert len(driver.answer(SHORT, 200)) == 200
    assert not restored


def test_sequences_that_share_most_of_their_cells_stay(driver: Driver, restored: list[int]) -> None:
    driver.engine._prefixes.store.cold_rows = 10_000  # type: ignore[attr-defined]
    for number in range(10, 14):
        driver.add(number, [*LONG[0][:200], number])
    while not all(driver.tokens[number] for number in range(10, 14)):
        driver.step()
    for tokens in LONG[1:]:
        driver.answer(tokens, 1)
    driver.engine.trim()
    for _ in range(70):
        driver.step()
    assert not restored


def test_a_parked_prefix_costs_a_stream_nothing_soon(driver: Driver) -> None:
    """Its cells are given back after few steps, though they are small."""
    for tokens in LONG[:2]:
        driver.answer(tokens, 1)
    driver.add(1, SHORT)
    for _ in range(70):
        driver.step()
    assert driver.engine.stats().details["parked_bytes"]
    assert driver.engine.stats().cache_tokens_used < 600


def test_it_is_decided_by_the_most_cells_at_once() -> None:
    context: Any = None
    one = Compaction(context)
    one.note(2000)
    one.note(100)
    assert one.is_sparse(700)
    assert not one.is_sparse(800)
    assert not one.is_due(63)
    assert one.is_due(64)
    assert not one.is_due(65)
    assert one.move([(0, 400), (1, 400)], 500) == [], "they share cells"
    assert one.is_sparse(700)
