"""Tests for engines that compute drafts: a text is the same with and without them.

Used like :class:`~lmx_kernel.testing.conformance.engine.EngineChecks`, with the same
``open_engine``.
"""

from __future__ import annotations

import random
from collections.abc import Sequence as Seq

from attrs import define, evolve

from lmx_kernel.engine.protocol import Engine
from lmx_kernel.engine.step_costs import StepCosts
from lmx_kernel.testing.conformance.engine import Checks, OpenEngine, prompt
from lmx_kernel.testing.driver import GREEDY, Driver
from lmx_kernel.testing.mask import ScriptedMask, choices
from lmx_kernel.testing.near_ties import is_near_tie
from lmx_kernel.types import Sampling

COUNT = 24
FREE: set[int] = set()
SAMPLINGS = [
    Sampling(temperature=0, seed=1),
    Sampling(temperature=1.0, seed=2),
    Sampling(temperature=1.0, seed=3, top_k=0, top_p=1.0, min_p=0.0),
    Sampling(temperature=0, seed=4, repetition_penalty=1.3, presence_penalty=1.0),
    Sampling(temperature=1.0, seed=5, frequency_penalty=0.5, logit_bias={9: 3.0}),
]


class FreeRows(StepCosts):
    """Costs of an engine whose rows cost nothing, whatever it measures.

    :param step_s: what every step takes.
    """

    def __init__(self, step_s: float = 1.0) -> None:
        super().__init__({1: step_s, 64: step_s})

    def observe(self, rows: int, seconds: float) -> None:
        """Learn nothing."""


@define
class Foresight:
    """A source of drafts that knows the answer, but errs now and then."""

    whole: list[int]
    seed: int
    errors: float = 0.15

    def propose(self, tokens: Seq[int], k: int) -> list[int]:
        """Return what comes next, and some wrong tokens."""
        dice = random.Random(self.seed + len(tokens))
        drafts = self.whole[len(tokens) : len(tokens) + k]
        return [token if dice.random() > self.errors else 7 for token in drafts]


class TextChecks(Checks):
    """What checks of drafts have in common. Where :attr:`is_exact` is false, near-ties may
    differ.
    """

    def draft_freely(self, engine: Engine) -> None:
        """Let the engine take rows for free, so that it computes all drafts that it gets: put
        :class:`FreeRows` in the place of its costs."""
        raise NotImplementedError

    def open_driver(self, open_engine: OpenEngine, **options: int) -> Driver:
        """Return an engine that drafts freely."""
        driver = Driver(open_engine(**options))
        self.draft_freely(driver.engine)
        return driver

    def check_same(
        self,
        driver: Driver,
        tokens: list[int],
        plain: list[int],
        found: list[int],
        sampling: Sampling = GREEDY,
        allowed: Seq[set[int]] = (),
    ) -> None:
        """Let two texts be the same, but for near-ties where numbers are not exact."""
        if found != plain:
            assert not self.is_exact, f"{found} is not {plain}"
            assert is_near_tie(driver, tokens, (plain, found), sampling, allowed)


class DraftChecks(TextChecks):
    """For engines that compute drafts."""

    def test_a_text_is_the_same_with_drafts(self, open_engine: OpenEngine) -> None:
        """Alone, whatever the sampling; and in fewer steps."""
        driver = self.open_driver(open_engine)
        for seed, sampling in enumerate(SAMPLINGS):
            tokens = prompt(seed, 30)
            plain = driver.answer(tokens, COUNT, sampling=sampling)
            steps, drafts = len(driver.steps), Foresight(tokens + plain, seed)
            found = driver.answer(tokens, COUNT, sampling=sampling, drafts=drafts)
            assert len(driver.steps) - steps < COUNT * 0.7
            self.check_same(driver, tokens, plain, found, sampling)

    def test_texts_in_a_batch_are_the_same_with_drafts(self, open_engine: OpenEngine) -> None:
        """Some of them drafted well, some badly, and one not at all."""
        driver = self.open_driver(open_engine, parallel=8, cache=4096)
        prompts = [prompt(seed, 10 + 7 * seed) for seed in range(5)]
        for number, tokens in enumerate(prompts):
            driver.add(number, tokens, sampling=SAMPLINGS[number])
        plain = driver.run(*range(5), count=COUNT)
        for number, tokens in enumerate(prompts):
            source = Foresight(tokens + plain[number], number, errors=0.1 + 0.2 * number)
            drafts = source if number != 2 else None
            driver.add(10 + number, tokens, sampling=SAMPLINGS[number], drafts=drafts)
        answers = driver.run(*range(10, 15), count=COUNT)
        outputs = [output for step in driver.steps for output in step.outputs if output.id >= 10]
        assert sum(output.accepted for output in outputs) > COUNT
        assert sum(output.drafted for output in outputs if output.id == 12) == 0
        for number, found in enumerate(answers):
            self.check_same(driver, prompts[number], plain[number], found, SAMPLINGS[number])

    def test_a_resumed_sequence_with_drafts_continues_as_without(
        self, open_engine: OpenEngine
    ) -> None:
        """And what was computed for drafts that were wrong is not taken for its prefix."""
        driver = self.open_driver(open_engine)
        tokens = prompt(3, 40)
        for sampling in SAMPLINGS:
            whole = driver.answer(tokens, COUNT, sampling=sampling)
            wrong = Foresight([*tokens, *whole[:4], *[7] * COUNT], 0, errors=0.0)
            found = driver.answer(tokens, 12, sampling=sampling, drafts=wrong)
            self.check_same(driver, tokens, whole[:12], found, sampling)
            drafts = Foresight(tokens + whole, 1)
            resumed = [*tokens, *whole[:9]]
            answer = driver.answer(resumed, COUNT - 9, sampling=sampling, produced=9, drafts=drafts)
            self.check_same(driver, tokens, whole, whole[:9] + answer, sampling)

    def test_log_probabilities_are_those_of_each_token(self, open_engine: OpenEngine) -> None:
        driver = self.open_driver(open_engine)
        tokens, found = prompt(4, 20), []
        for drafts in (False, True):
            source = Foresight(tokens + driver.tokens.get(0, []), 1) if drafts else None
            driver.add(int(drafts), tokens, logprobs=2, drafts=source)
            driver.run(int(drafts), count=COUNT)
            outputs = [o for step in driver.steps for o in step.outputs if o.id == int(drafts)]
            found.append([detail for output in outputs for detail in output.logprobs][:COUNT])
        assert driver.tokens[0][:COUNT] == driver.tokens[1][:COUNT]
        for one, other in zip(*found, strict=True):
            assert abs(one.chosen - other.chosen) < 0.01
            assert [token for token, _ in one.top] == [token for token, _ in other.top]

    def test_masked_texts_are_the_same_with_drafts(self, open_engine: OpenEngine) -> None:
        driver = self.open_driver(open_engine)
        tokens = prompt(5, 20)
        steps = [*choices(2, 8), *({token} for token in range(60, 66)), FREE, *choices(3, 20)]
        for sampling in SAMPLINGS:
            plain = driver.answer(tokens, COUNT, sampling=sampling, mask=ScriptedMask(*steps))
            for seed in range(2):
                mask, drafts = ScriptedMask(*steps), Foresight(tokens + plain, seed)
                found = driver.answer(tokens, COUNT, sampling=sampling, mask=mask, drafts=drafts)
                assert mask.accepted[:COUNT] == found
                self.check_same(driver, tokens, plain, found, sampling, steps)

    def test_drafts_end_with_the_mask(self, open_engine: OpenEngine) -> None:
        """Nothing is drawn after the token that completes an answer."""
        driver = self.open_driver(open_engine)
        tokens = prompt(6, 20)
        plain = driver.answer(tokens, COUNT)
        for complete in (False, True):
            mask = EndingMask(6, complete=complete)
            driver.add(int(complete), tokens, mask=mask, drafts=Foresight(tokens + plain, 0, 0.0))
            while len(driver.tokens[int(complete)]) < 6:
                driver.step()
            assert driver.tokens[int(complete)] == plain[:6]
            driver.engine.remove(int(complete))

    def test_drafts_end_with_the_context(self, open_engine: OpenEngine) -> None:
        driver = self.open_driver(open_engine, context=64, cache=128)
        tokens = prompt(7, 50)
        plain = driver.answer(tokens, 15)
        assert driver.answer(tokens, 15, drafts=Foresight(tokens + plain * 3, 0)) == plain

    def test_a_full_batch_computes_no_drafts(self, open_engine: OpenEngine) -> None:
        driver = self.open_driver(open_engine, parallel=2)
        tokens = prompt(8, 20)
        plain = driver.answer(tokens, COUNT)
        for number in range(2):
            driver.add(number, tokens, drafts=Foresight(tokens + plain, number))
        driver.run(0, 1, count=COUNT)
        assert not any(output.drafted for step in driver.steps for output in step.outputs)

    def test_drafts_that_do_not_pay_are_not_computed(self, open_engine: OpenEngine) -> None:
        """Whether they are always wrong, or rows cost too much."""
        driver = self.open_driver(open_engine)
        tokens = prompt(9, 20)
        plain = driver.answer(tokens, 40)
        before = len(driver.steps)
        wrong = Foresight(tokens + [7] * 40, 0, 0.0)
        assert driver.answer(tokens, 40, drafts=wrong) == plain
        outputs = [output for step in driver.steps[before:] for output in step.outputs]
        assert sum(output.drafted for output in outputs) < 20

    def test_a_source_may_propose_tokens_that_do_not_exist(self, open_engine: OpenEngine) -> None:
        driver = self.open_driver(open_engine)
        tokens = prompt(10, 20)
        plain = driver.answer(tokens, 10)
        for bad in (self.vocabulary, 10**6, -1):
            whole = [*tokens, *plain[:3], bad, *plain[4:]]
            assert driver.answer(tokens, 10, drafts=Foresight(whole, 0, 0.0)) == plain

    def test_seeds_stay_apart_with_drafts(self, open_engine: OpenEngine) -> None:
        """The drafts of another seed's text are checked, not believed."""
        driver = self.open_driver(open_engine)
        tokens, warm = prompt(11, 20), Sampling(temperature=1.2, seed=1)
        first = driver.answer(tokens, COUNT, sampling=warm)
        other = evolve(warm, seed=2)
        plain = driver.answer(tokens, COUNT, sampling=other)
        drafts = Foresight(tokens + first, 0, 0.0)
        found = driver.answer(tokens, COUNT, sampling=other, drafts=drafts)
        self.check_same(driver, tokens, plain, found, other)


class EndingMask(ScriptedMask):
    """Allows anything, and is over after some tokens; it must get no more then.

    :param complete: whether the answer is complete then, or cannot be completed.
    """

    def __init__(self, count: int, *, complete: bool) -> None:
        super().__init__()
        self._count, self._complete = count, complete

    def accept(self, tokens: Seq[int]) -> None:
        """Continue after ``tokens``."""
        super().accept(tokens)
        assert len(self.accepted) <= self._count
        is_over = len(self.accepted) == self._count
        self.is_complete = is_over and self._complete
        self.problem = "a dead end" if is_over and not self._complete else ""
