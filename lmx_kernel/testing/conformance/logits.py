"""Tests for engines that let logits processors change what they sample from, which all should.

Used like :class:`~lmx_kernel.testing.conformance.engine.EngineChecks`, with the same
``open_engine``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as Seq
from typing import Any

from lmx_kernel.engine.logits import NO_TOKEN
from lmx_kernel.testing.conformance.engine import PROMPT, SEEDED, Checks, OpenEngine
from lmx_kernel.testing.driver import GREEDY, Driver
from lmx_kernel.testing.mask import ScriptedMask
from lmx_kernel.types import Sampling

COUNT = 8
AFTER_PROMPT = [PROMPT[-1] + number for number in range(1, COUNT + 1)]


class Counting:
    """Leaves the token after the last one only, so that every token it is not told of shows."""

    def adjust(self, row: Any, tokens: Seq[int]) -> None:
        row[:] = -math.inf
        row[tokens[-1] + 1] = 0


class Unable:
    """Cannot work from a token on; before it, it changes nothing."""

    def __init__(self, at: int, fault: float | None = None) -> None:
        self._at = at
        self._fault = fault

    def adjust(self, row: Any, tokens: Seq[int]) -> None:
        if len(tokens) >= self._at:
            row[:] = 1 / 0 if self._fault is None else self._fault


class LogitsChecks(Checks):
    """What every engine does with logits processors."""

    def test_a_processor_is_told_every_token_and_decides_the_next(
        self, open_engine: OpenEngine
    ) -> None:
        driver = Driver(open_engine())
        hot = Sampling(temperature=1.5, seed=3, top_k=0, top_p=1.0, min_p=0.0)
        for sampling in (GREEDY, SEEDED, hot):
            for number in range(3):
                processors = {"counting": Counting()} if number else {}
                driver.add(number, PROMPT, sampling=sampling, processors=processors)
            assert driver.run(0, 1, 2, count=COUNT)[1:] == [AFTER_PROMPT] * 2
            assert driver.answer(PROMPT, COUNT, processors={"x": Counting()}) == AFTER_PROMPT

    def test_an_answer_goes_on_where_it_stopped(self, open_engine: OpenEngine) -> None:
        driver = Driver(open_engine())
        tokens, processors = [*PROMPT, *AFTER_PROMPT[:3]], {"counting": Counting()}
        rest = driver.answer(tokens, COUNT - 3, produced=3, processors=processors)
        assert rest == AFTER_PROMPT[3:]

    def test_processors_run_in_order_and_a_mask_has_the_last_word(
        self, open_engine: OpenEngine
    ) -> None:
        driver = Driver(open_engine())
        both = {"nothing": Unable(1000), "counting": Counting()}
        allowed = [{token, 7} for token in AFTER_PROMPT[:3]] + [{9}] + [{10, 7}]
        answer = driver.answer(PROMPT, 5, processors=both, mask=ScriptedMask(*allowed))
        assert answer == [*AFTER_PROMPT[:3], 9, 10]

    def test_neighbours_later_prompts_and_log_probabilities_do_not_show_it(
        self, open_engine: OpenEngine
    ) -> None:
        driver = Driver(open_engine())
        for number in (1, 2):
            driver.add(number, PROMPT, sampling=SEEDED)
        free, _ = driver.run(1, 2, count=COUNT)
        driver.add(3, PROMPT, sampling=SEEDED)
        driver.add(4, PROMPT, processors={"counting": Counting()}, logprobs=1)
        assert driver.run(3, 4, count=COUNT) == [free, AFTER_PROMPT]
        for number in (5, 6):
            driver.add(number, PROMPT, sampling=SEEDED)
        assert driver.run(5, 6, count=COUNT) == [free, free]
        details = [one for step in driver.steps for o in step.outputs for one in o.logprobs]
        assert len(details) >= COUNT
        assert all(-math.inf < one.chosen <= one.top[0][1] for one in details)

    def test_one_that_fails_costs_its_own_sequence_only(self, open_engine: OpenEngine) -> None:
        driver = Driver(open_engine())
        at = len(PROMPT) + 3
        reasons = {1: "the logits processor unable failed: ZeroDivisionError", 2: NO_TOKEN}
        driver.add(0, PROMPT)
        driver.add(1, PROMPT, processors={"unable": Unable(at)})
        driver.add(2, PROMPT, processors={"unable": Unable(at, -math.inf)})
        driver.add(3, PROMPT, processors={"unable": Unable(at, math.nan)})
        failed: dict[int, str] = {}
        while len(driver.tokens[0]) < COUNT:
            failed |= driver.step().failed
        assert failed == reasons | {3: NO_TOKEN}
        assert all(len(driver.tokens[number]) <= 3 for number in failed)
