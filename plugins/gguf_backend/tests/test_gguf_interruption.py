"""A prompt alone is computed in large pieces; who joins or leaves interrupts one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from lmx_gguf_backend import interruption, pulse
from lmx_gguf_backend.context import Context
from lmx_gguf_backend.interruption import Interruption
from lmx_gguf_backend.prefill_budget import PrefillBudget

from lmx_kernel.engine import InterruptibleSteps, LongSteps
from lmx_kernel.testing.driver import Driver

PROMPT = [1, *(3 + n * 7 % 290 for n in range(499))]


@pytest.fixture
def interrupt(tiny_driver: Driver, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return what has the next computation be interrupted after its first node."""
    monkeypatch.setattr(interruption, "WORTH_S", -1.0)  # the tiny model computes in no time
    compute, asks = Context.compute, [False]

    def interrupted(context: Context, pieces: Any) -> int:
        if asks.pop():
            tiny_driver.engine.interrupt()  # type: ignore[attr-defined]
        asks.append(False)
        return compute(context, pieces)

    monkeypatch.setattr(Context, "compute", interrupted)
    return lambda: asks.append(True)


def take_rows_to_cost(driver: Driver, seconds: float) -> None:
    driver.engine._computation.budget.tile_row_s = seconds  # type: ignore[attr-defined]


def test_a_prompt_alone_takes_one_large_piece(tiny_driver: Driver) -> None:
    take_rows_to_cost(tiny_driver, 0.004)
    tiny_driver.add(1, PROMPT)
    step = tiny_driver.step()
    assert [(one.processed, one.total) for one in step.progress] == [(448, 500)]


def test_beside_others_pieces_are_small(tiny_driver: Driver) -> None:
    take_rows_to_cost(tiny_driver, 0.004)
    tiny_driver.add(1, PROMPT)
    tiny_driver.add(2, PROMPT[::-1])
    assert sum(one.processed for one in tiny_driver.step().progress) <= 64


def test_an_interrupted_piece_is_computed_again(
    tiny_driver: Driver, interrupt: Callable[[], None]
) -> None:
    expected = tiny_driver.answer(PROMPT, 8)
    tiny_driver.engine.trim()
    tiny_driver.add(1, PROMPT)
    interrupt()
    step = tiny_driver.step()
    assert not step.progress
    assert not step.outputs
    tiny_driver.add(2, PROMPT[:20])
    interrupt()
    step = tiny_driver.step()
    assert step.progress, "the piece after an interrupted one is not interrupted"
    assert tiny_driver.run(1, 2, count=8)[0] == expected


def test_a_cancelled_prompt_leaves_nothing_of_its_interrupted_piece(
    tiny_driver: Driver, interrupt: Callable[[], None]
) -> None:
    tiny_driver.add(1, PROMPT)
    interrupt()
    tiny_driver.step()
    tiny_driver.engine.remove(1)
    assert tiny_driver.engine.stats().cache_tokens_used == 0
    assert len(tiny_driver.answer(PROMPT[:50], 4)) == 4
    assert tiny_driver.cached(1001) == 0


def test_running_streams_are_not_interrupted(
    tiny_driver: Driver, interrupt: Callable[[], None]
) -> None:
    tiny_driver.add(1, PROMPT[:10])
    tiny_driver.step()
    interrupt()
    assert tiny_driver.step().outputs


def test_what_nobody_was_added_for_shortens_one_piece(tiny_driver: Driver) -> None:
    take_rows_to_cost(tiny_driver, 0.002)
    tiny_driver.add(1, PROMPT)
    tiny_driver.engine.interrupt()  # type: ignore[attr-defined]
    assert tiny_driver.step().progress[0].processed <= 128
    take_rows_to_cost(tiny_driver, 0.002)
    assert tiny_driver.step().progress[0].processed == 500


def test_the_engine_says_that_it_can_be_interrupted(tiny_driver: Driver) -> None:
    assert isinstance(tiny_driver.engine, InterruptibleSteps)


def test_where_semaphores_cannot_be_made_pieces_stay_small(
    open_tiny: Callable[..., Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulse.SemaphoreCallback, "make", lambda _: None)
    driver = open_tiny()
    engine: Any = driver.engine
    take_rows_to_cost(driver, 0.004)
    assert isinstance(engine, LongSteps)
    engine.pulse()
    before = engine.pulse()
    driver.add(1, PROMPT)
    engine.interrupt()
    assert driver.step().progress[0].processed <= 64
    assert engine.pulse() != before
    engine.interrupt()
    assert driver.step().progress[0].processed <= 128


class Pulse:
    can_stop, stopped = True, 0

    def stop(self) -> None:
        self.stopped += 1

    def allow(self) -> None:
        pass


def test_what_ends_soon_is_not_interrupted() -> None:
    pulse: Any = Pulse()
    one = Interruption(pulse)
    with one.during(0.1):
        one.ask()
    assert not pulse.stopped
    one.settle()
    with one.during(60.0):
        one.ask()
        one.ask()
    assert pulse.stopped == 1


def test_who_asks_between_plan_and_computation_is_heard() -> None:
    pulse: Any = Pulse()
    one = Interruption(pulse)
    one.ask()
    assert not one.allows_long
    with one.during(60.0):
        assert pulse.stopped


def test_interrupted_pieces_are_short_and_grow() -> None:
    budget = PrefillBudget(row_s=0.005, tile_row_s=0.004)
    assert budget.rows_alone() == 448
    budget.interrupted()
    grown = [budget.rows_alone()]
    for _ in range(3):
        budget.observe(0, 64, 64 * 0.004)
        grown.append(budget.rows_alone())
    assert grown[0] == 64
    assert grown == sorted(grown)
    assert grown[-1] == 448


def test_tiles_that_take_very_long_are_not_computed_at_once() -> None:
    assert PrefillBudget(row_s=0.5, tile_row_s=0.3).rows_alone() == 8
    assert PrefillBudget(row_s=0.1, tile_row_s=0.08).rows_alone() == 64
