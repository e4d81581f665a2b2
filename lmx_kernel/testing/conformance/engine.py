"""Tests for any engine: an author's test class derives from these, and pytest collects them all.

For instance, in a package's tests::

    class TestEngine(EngineChecks, PrefixChecks, SamplingChecks, MaskChecks):
        @pytest.fixture
        def open_engine(self):
            with ExitStack() as stack:
                yield lambda **options: stack.enter_context(closing(open_my_engine(**options)))

The model should be tiny and random. What only some engines have is checked by the classes of
:mod:`~lmx_kernel.testing.conformance.engine_features`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

from attrs import evolve

from lmx_kernel.engine.protocol import Engine, Sequence
from lmx_kernel.engine.running import NOT_FINITE
from lmx_kernel.errors import ContextOverflowError, InvalidRequestError, LmxError
from lmx_kernel.testing.driver import GREEDY, Driver
from lmx_kernel.types import Sampling

SEEDED = Sampling(temperature=0.9, seed=42)
PROMPT = [1, 20, 30, 40, 50]

OpenEngine = Callable[..., Engine]
"""Opens an engine. Keywords, with their defaults: ``context=512`` tokens, ``parallel=4`` sequences,
``cache=2048`` tokens."""


def prompt(seed: int, count: int) -> list[int]:
    """Return a prompt of ``count`` tokens, at random but for the first."""
    dice = random.Random(seed)
    return [1] + [dice.randrange(3, 300) for _ in range(count - 1)]


def refusal(call: Callable[[], object], error: type[LmxError]) -> str:
    """Return the message of the ``error`` that ``call`` raises.

    :raises AssertionError: it raises none.
    """
    try:
        call()
    except error as caught:
        return caught.message
    raise AssertionError(f"no {error.__name__}")


class Checks:
    """What all checks need.

    :cvar vocabulary: number of the model's tokens, at least 300.
    :cvar is_exact: whether logits are the same however they were computed, in one piece or several.
        If they are only nearly so, what was computed in other pieces is not compared.
    """

    vocabulary = 300
    is_exact = True

    def slow_down(self, engine: Engine) -> None:
        """Let the next steps compute at most 64 prompt tokens each; does nothing where they do."""


class EngineChecks(Checks):
    """What every engine does. Fixtures of the author's class:

    - ``open_engine``: an :data:`OpenEngine`;
    - ``nan_engine``: an engine whose model computes NaN after token 10 at the end of a prompt.
    """

    def test_is_an_engine(self, open_engine: OpenEngine) -> None:
        engine = open_engine(context=512, parallel=8)
        assert isinstance(engine, Engine)
        assert engine.limits.context_length == 512
        assert engine.limits.max_sequences == 8
        assert len(engine.tokenizer.token_bytes) == self.vocabulary
        assert engine.tokenizer.end_ids

    def test_an_idle_engine_steps(self, open_engine: OpenEngine) -> None:
        step = open_engine().step()
        assert (step.outputs, step.progress, step.preempted, step.failed) == ((), (), (), ())

    # --- joining and leaving

    def test_sequences_join_and_leave_between_steps(self, open_engine: OpenEngine) -> None:
        driver = Driver(open_engine())
        prompts = [prompt(seed, 20) for seed in range(3)]
        alone = [driver.answer(tokens, 20) for tokens in prompts]
        driver.add(0, prompts[0])
        for _ in range(5):
            driver.step()
        driver.add(1, prompts[1])
        driver.add(2, prompts[2])
        for _ in range(5):
            driver.step()
        driver.engine.remove(1)
        assert len(driver.tokens[1]) < 20
        assert driver.run(0, 2, count=20) == [alone[0], alone[2]]
        driver.add(3, prompts[1])
        assert driver.run(3, count=20) == [alone[1]]

    def test_cancelling_takes_effect_at_once(self, open_engine: OpenEngine) -> None:
        driver = Driver(open_engine())
        for number in range(3):
            driver.add(number, prompt(number, 20))
        driver.step()
        driver.engine.remove(1)
        driver.engine.remove(1)
        driver.engine.remove(77)
        step = driver.step()
        assert all(output.id != 1 for output in step.outputs)
        driver.add(1, prompt(3, 20))
        assert len(driver.run(0, 1, 2, count=5)) == 3

    def test_a_resumed_sequence_continues_as_if_it_had_never_left(
        self, open_engine: OpenEngine
    ) -> None:
        """On what is cached, and after everything was forgotten."""
        driver = Driver(open_engine())
        tokens = prompt(1, 50)
        for sampling in (
            GREEDY,
            SEEDED,
            evolve(SEEDED, repetition_penalty=1.4),
            Sampling(seed=9, frequency_penalty=1.0, top_k=0),
        ):
            whole = driver.answer(tokens, 40, sampling=sampling)
            for produced in (15, 1, 10, 23) if self.is_exact else (15,):
                resumed = driver.answer(
                    tokens + whole[:produced],
                    40 - produced,
                    produced=produced,
                    sampling=sampling,
                )
                assert resumed == whole[produced:]
                driver.engine.trim()

    # --- prompts

    def test_the_first_token_comes_with_the_last_piece(self, open_engine: OpenEngine) -> None:
        driver = Driver(open_engine())
        driver.add(1, PROMPT)
        step = driver.step()
        assert [output.id for output in step.outputs] == [1]
        assert [(p.processed, p.total, p.cached) for p in step.progress] == [(5, 5, 0)]

    def test_progress_reaches_the_whole_prompt(self, open_engine: OpenEngine) -> None:
        driver = Driver(open_engine())
        driver.add(1, prompt(1, 400))
        driver.run(1, count=2)
        reports = [p for step in driver.steps for p in step.progress]
        assert all(a.processed < b.processed for a, b in pairwise(reports))
        assert (reports[-1].processed, reports[-1].total, reports[-1].cached) == (400, 400, 0)

    def test_a_short_prompt_does_not_wait_for_a_long_one(self, open_engine: OpenEngine) -> None:
        driver = Driver(open_engine(context=1024, cache=4096))
        self.slow_down(driver.engine)
        driver.add(1, prompt(1, 900))
        driver.step()
        driver.add(2, prompt(2, 30))
        driver.run(2, count=1)
        assert not driver.tokens[1]

    def test_a_cancelled_prompt_leaves_nothing(self, open_engine: OpenEngine) -> None:
        driver = Driver(open_engine(context=1024))
        self.slow_down(driver.engine)
        driver.add(1, prompt(1, 500))
        driver.step()
        assert 0 < driver.engine.stats().cache_tokens_used < 500
        driver.engine.remove(1)
        assert driver.engine.stats().cache_tokens_used == 0
        assert driver.engine.stats().details.get("kept_prefixes", 0) == 0
        driver.add(2, prompt(1, 500))
        driver.run(2, count=1)
        assert driver.cached(2) == 0

    # --- limits

    def test_the_youngest_is_preempted_when_the_cache_is_full(
        self, open_engine: OpenEngine
    ) -> None:
        driver = Driver(open_engine(context=512, parallel=2, cache=512))
        prompts = [prompt(4, 200), prompt(2, 200)]
        expected = [driver.answer(tokens, 100) for tokens in prompts]
        driver.add(1, prompts[0])
        driver.add(2, prompts[1])
        while not (step := driver.step()).preempted:
            assert not step.failed
        assert step.preempted == (2,)
        assert driver.run(1, count=100)[0] == expected[0]
        done = driver.tokens[2]
        assert 10 < len(done) < 100
        assert done == expected[1][: len(done)]
        rest = driver.answer(prompts[1] + done, 100 - len(done), produced=len(done))
        assert done + rest == expected[1]

    def test_a_sequence_ends_at_its_context_length(self, open_engine: OpenEngine) -> None:
        driver = Driver(open_engine(context=64, cache=512))
        driver.add(1, prompt(1, 60))
        driver.add(2, prompt(2, 20))
        while not (step := driver.step()).failed:
            assert len(driver.tokens[1]) <= 5, "nothing is computed after the last token"
        assert step.failed == ((1, "its context is full"),)
        assert len(driver.tokens[1]) == 5
        assert len(driver.run(2, count=12)[0]) == 12
        driver.add(3, prompt(2, 64))
        assert len(driver.run(3, count=1)[0]) == 1

    def test_wrong_arguments_are_refused(self, open_engine: OpenEngine) -> None:
        driver = Driver(open_engine())
        driver.add(1, [1, 5, 9])
        for fields, error, text in self._wrong_fields():
            given: dict[str, Any] = {"id": 2, "tokens": [1, 5], "produced": 0, "sampling": SEEDED}
            sequence = Sequence(**given | fields)
            assert text in refusal(partial(driver.engine.add, sequence), error)
        assert len(driver.run(1, count=5)[0]) == 5

    def _wrong_fields(self) -> list[tuple[dict[str, Any], type[LmxError], str]]:
        unknown, bad = self.vocabulary, InvalidRequestError
        return [
            ({"tokens": []}, bad, "at least one token"),
            ({"tokens": [-1]}, bad, "outside the vocabulary"),
            ({"tokens": [5, -1]}, bad, "outside the vocabulary"),
            ({"tokens": [unknown]}, bad, "outside the vocabulary"),
            ({"tokens": [1_000_000]}, bad, "outside the vocabulary"),
            ({"tokens": [1 << 40]}, bad, "outside the vocabulary"),
            ({"tokens": [5] * 513}, ContextOverflowError, "do not fit"),
            ({"produced": 99}, bad, "more tokens were produced"),
            ({"produced": -1}, bad, "more tokens were produced"),
            ({"logprobs": -1}, bad, "logprobs"),
            ({"id": 1}, bad, "already running"),
            ({"sampling": Sampling(logit_bias={unknown: 1.0})}, bad, "logit_bias"),
            ({"sampling": Sampling(temperature=math.nan)}, bad, "finite"),
            ({"sampling": Sampling(repetition_penalty=0)}, bad, "above 0"),
        ]

    def test_one_sequence_too_many_is_refused(self, open_engine: OpenEngine) -> None:
        driver = Driver(open_engine(parallel=4))
        for number in range(4):
            driver.add(number, [1, number + 5])
        text = refusal(lambda: driver.add(4, [1, 5]), InvalidRequestError)
        assert text == "4 sequences run already"
        driver.engine.remove(0)
        driver.add(4, [1, 5])
        driver.run(1, 2, 3, 4, count=3)

    def test_numbers_that_are_not_finite_fail_their_sequence(
        self, open_engine: OpenEngine, nan_engine: Engine
    ) -> None:
        expected = Driver(open_engine()).answer(PROMPT, 8)
        driver = Driver(nan_engine)
        driver.add(1, PROMPT)
        driver.add(2, [1, 5, 10])
        while not (step := driver.step()).failed:
            assert len(driver.tokens[2]) < 8
        assert step.failed == ((2, NOT_FINITE),)
        assert driver.run(1, count=8) == [expected]

    # --- the rest

    def test_log_probabilities_go_to_those_that_asked(self, open_engine: OpenEngine) -> None:
        driver = Driver(open_engine())
        for number, logprobs in enumerate((5, None, 0)):
            driver.add(number, prompt(number, 20), logprobs=logprobs)
        driver.run(0, 1, 2, count=6)
        outputs = [output for step in driver.steps for output in step.outputs]
        details = [[d for o in outputs if o.id == n for d in o.logprobs] for n in range(3)]
        assert [len(found) >= 6 for found in details] == [True, False, True]
        assert details[1] == []
        for detail in details[2]:
            assert detail.top == ()
            assert detail.chosen < 0
        for token, detail in zip(driver.tokens[0], details[0], strict=True):
            numbers = [number for _, number in detail.top]
            assert len(numbers) == 5
            assert numbers == sorted(numbers, reverse=True)
            assert detail.top[0][0] == token
            assert math.isclose(detail.top[0][1], detail.chosen, rel_tol=1e-6, abs_tol=1e-9)
            assert 0 < sum(map(math.exp, numbers)) <= 1.0001

    def test_a_stream_is_not_disturbed_when_the_engine_is_trimmed(
        self, open_engine: OpenEngine
    ) -> None:
        driver = Driver(open_engine())
        tokens = prompt(1, 100)
        whole = driver.answer(tokens, 40)
        driver.add(1, tokens)
        while len(driver.tokens[1]) < 10:
            driver.step()
        driver.engine.trim()
        assert driver.engine.stats().details.get("kept_prefixes", 0) == 0
        assert driver.run(1, count=40) == [whole]
