"""Tests for what an engine may have beyond the protocol: prefixes, sampling, masks, long steps.

Used like :class:`~lmx_kernel.testing.conformance.engine.EngineChecks`, with the same
``open_engine``.
"""

from __future__ import annotations

import math
import threading

from attrs import evolve

from lmx_kernel.engine.protocol import InterruptibleSteps, LongSteps
from lmx_kernel.testing.conformance.engine import PROMPT, SEEDED, Checks, OpenEngine, prompt
from lmx_kernel.testing.driver import GREEDY, Driver
from lmx_kernel.testing.mask import ScriptedMask, choices
from lmx_kernel.types import Sampling

FREE: set[int] = set()
SAMPLINGS = [
    Sampling(temperature=0, seed=1),
    Sampling(temperature=1.0, seed=2),
    Sampling(temperature=1.5, seed=3, top_k=0, top_p=1.0, min_p=0.0),
    Sampling(temperature=0, seed=4, repetition_penalty=1.5, presence_penalty=2.0),
]


class PrefixChecks(Checks):
    """For engines that begin with what was computed for earlier prompts, or for running ones."""

    def test_an_equal_prompt_is_cached_but_for_its_last_token(
        self, open_engine: OpenEngine
    ) -> None:
        driver = Driver(open_engine())
        tokens = prompt(1, 100)
        first = driver.answer(tokens, 10)
        driver.add(2, tokens)
        assert driver.run(2, count=10)[0] == first
        assert driver.cached(2) == 99

    def test_eight_at_once_compute_a_shared_prefix_once(self, open_engine: OpenEngine) -> None:
        driver = Driver(open_engine(parallel=8, cache=4096))
        shared = prompt(1, 300)
        for number in range(8):
            driver.add(number, shared + prompt(50 + number, 10)[1:])
        driver.run(*range(8), count=3)
        assert [driver.cached(number) for number in range(8)] == [0] + [300] * 7

    def test_candidates_of_one_prompt_compute_it_once(self, open_engine: OpenEngine) -> None:
        """In one step, and in several."""
        for is_slow in (False, True):
            driver = Driver(open_engine())
            if is_slow:
                self.slow_down(driver.engine)
            for number in range(4):
                sampling = Sampling(seed=number, temperature=1.5)
                driver.add(number, prompt(1, 200), sampling=sampling)
            answers = driver.run(*range(4), count=8)
            assert [driver.cached(number) for number in range(4)] == [0, 199, 199, 199]
            assert len({tuple(answer) for answer in answers}) == 4

    def test_prefixes_are_shared_within_a_cache_space_only(self, open_engine: OpenEngine) -> None:
        """Kept ones, those of running sequences, and those that are being computed."""
        driver = Driver(open_engine(cache=4096))
        tokens = prompt(1, 100)
        answer = driver.answer(tokens, 8, cache_space="a")
        driver.add(0, tokens, cache_space="b")
        driver.add(1, tokens, cache_space="b")
        driver.step()
        driver.add(2, tokens, cache_space="c")
        driver.add(3, tokens, cache_space="a")
        assert driver.run(0, 1, 2, 3, count=8) == [answer] * 4
        assert [driver.cached(number) for number in range(4)] == [0, 99, 0, 99]

    def test_a_space_keeps_its_prefix_beside_a_longer_one_of_another(
        self, open_engine: OpenEngine
    ) -> None:
        driver = Driver(open_engine(cache=4096))
        tokens = prompt(1, 100)
        driver.answer(tokens, 4, cache_space="a")
        driver.answer(tokens + prompt(2, 50)[1:], 4, cache_space="b")
        driver.add(1, tokens, cache_space="a")
        driver.add(2, tokens, cache_space="b")
        driver.run(1, 2, count=4)
        assert [driver.cached(1), driver.cached(2)] == [99, 99]

    def test_who_waits_for_a_prefix_survives_its_cancel(self, open_engine: OpenEngine) -> None:
        driver = Driver(open_engine())
        self.slow_down(driver.engine)
        shared = prompt(1, 300)
        driver.add(1, [*shared, 5])
        driver.add(2, [*shared, 6])
        driver.step()
        driver.engine.remove(1)
        assert len(driver.run(2, count=4)[0]) == 4

    def test_kept_prefixes_take_no_room_from_sequences(self, open_engine: OpenEngine) -> None:
        driver = Driver(open_engine(context=512, parallel=2, cache=512))
        for seed in range(12):
            assert len(driver.answer(prompt(seed, 300), 3)) == 3
        assert driver.engine.stats().cache_tokens_used <= 512

    def test_trimming_forgets_prefixes(self, open_engine: OpenEngine) -> None:
        driver = Driver(open_engine())
        tokens = prompt(1, 100)
        driver.answer(tokens, 4)
        assert driver.engine.stats().details["kept_prefixes"] > 0
        driver.engine.trim()
        assert driver.engine.stats().details["kept_prefixes"] == 0
        driver.add(1, tokens)
        driver.run(1, count=1)
        assert driver.cached(1) == 0


class SamplingChecks(Checks):
    """For engines that draw from logits."""

    def test_different_seeds_give_different_texts(self, open_engine: OpenEngine) -> None:
        driver = Driver(open_engine())
        samplings = [evolve(SEEDED, seed=seed) for seed in range(5)]
        texts = {tuple(driver.answer(PROMPT, 12, sampling=sampling)) for sampling in samplings}
        assert len(texts) == 5

    def test_penalties_change_the_text(self, open_engine: OpenEngine) -> None:
        driver = Driver(open_engine())
        penalised = evolve(GREEDY, presence_penalty=50)
        assert len(set(driver.answer([5, 5, 5, 5], 80))) < 80
        assert len({*driver.answer([5, 5, 5, 5], 80, sampling=penalised), 5}) == 81

    def test_log_probabilities_ignore_sampling(self, open_engine: OpenEngine) -> None:
        driver = Driver(open_engine())
        driver.add(1, PROMPT, logprobs=1, sampling=evolve(GREEDY, logit_bias={50: 100.0}))
        driver.run(1, count=1)
        [detail] = [d for step in driver.steps for o in step.outputs for d in o.logprobs][:1]
        assert driver.tokens[1][0] == 50
        assert detail.top[0][0] != 50
        assert detail.chosen < detail.top[0][1]

    def test_more_log_probabilities_than_tokens(self, open_engine: OpenEngine) -> None:
        driver = Driver(open_engine())
        driver.add(1, [1, 5], logprobs=100_000)
        driver.run(1, count=1)
        [detail] = [d for step in driver.steps for o in step.outputs for d in o.logprobs][:1]
        total = sum(math.exp(number) for _, number in detail.top)
        assert math.isclose(total, 1, abs_tol=1e-3)
        assert len(detail.top) == self.vocabulary


class MaskChecks(Checks):
    """For engines that obey masks, which all should."""

    def test_only_allowed_tokens_are_chosen(self, open_engine: OpenEngine) -> None:
        driver, steps = Driver(open_engine()), choices(1, 12)
        for sampling in SAMPLINGS:
            answer = driver.answer(PROMPT, 12, sampling=sampling, mask=ScriptedMask(*steps))
            assert all(token in step for token, step in zip(answer, steps, strict=True))

    def test_a_mask_that_allows_all_changes_nothing(self, open_engine: OpenEngine) -> None:
        driver = Driver(open_engine())
        for sampling in SAMPLINGS:
            free = driver.answer(PROMPT, 12, sampling=sampling)
            mask = ScriptedMask(*[set(range(self.vocabulary))] * 12)
            assert driver.answer(PROMPT, 12, sampling=sampling, mask=mask) == free

    def test_forced_tokens_come_in_one_step_and_count_as_chosen(
        self, open_engine: OpenEngine
    ) -> None:
        for sampling in SAMPLINGS:
            driver = Driver(open_engine())
            mask = ScriptedMask(FREE, *({token} for token in range(60, 72)), *[FREE] * 20)
            driver.add(1, PROMPT, sampling=sampling, mask=mask)
            [answer] = driver.run(1, count=20)
            assert answer[1:13] == list(range(60, 72))
            lengths = [len(output.tokens) for step in driver.steps for output in step.outputs]
            assert 13 in lengths
            assert mask.accepted[:20] == answer
            again = driver.answer([*PROMPT, *answer[:13]], 7, sampling=sampling, produced=13)
            assert again == answer[13:]

    def test_more_forced_tokens_than_a_step_takes(self, open_engine: OpenEngine) -> None:
        driver = Driver(open_engine())
        forced = [3 + n % 200 for n in range(150)]
        for number in range(4):
            mask = ScriptedMask(*({token} for token in forced))
            driver.add(number, [*PROMPT, 7 + number], mask=mask)
        for answer in driver.run(*range(4), count=150):
            assert answer == forced

    def test_forced_tokens_end_with_the_context(self, open_engine: OpenEngine) -> None:
        driver = Driver(open_engine(context=16, cache=64))
        driver.add(1, PROMPT, mask=ScriptedMask(*({token} for token in range(60, 120))))
        assert driver.run(1, count=12) == [list(range(60, 72))]

    def test_forced_tokens_have_their_log_probabilities(self, open_engine: OpenEngine) -> None:
        driver = Driver(open_engine())
        mask = ScriptedMask(FREE, *({token} for token in range(60, 66)), *choices(3, 5))
        driver.add(1, PROMPT, logprobs=2, mask=mask)
        driver.run(1, count=12)
        for step in driver.steps:
            for output in step.outputs:
                assert len(output.tokens) == len(output.logprobs) == 1
                [detail] = output.logprobs
                assert detail.chosen < 0
                assert detail.top[0][1] >= detail.chosen  # the model's own view, without the mask

    def test_neighbours_of_a_masked_sequence_are_not_disturbed(
        self, open_engine: OpenEngine
    ) -> None:
        driver = Driver(open_engine())
        prompts = {number: [*PROMPT, 100 + number] for number in range(3)}
        for number, tokens in prompts.items():
            driver.add(number, tokens, sampling=SAMPLINGS[number])
        expected = driver.run(0, 1, 2, count=16)
        masks = {1: ScriptedMask(*choices(5, 16))}
        for number, tokens in prompts.items():
            mask = masks.get(number)
            driver.add(number + 10, tokens, sampling=SAMPLINGS[number], mask=mask)
        answers = driver.run(10, 11, 12, count=16)
        assert [answers[0], answers[2]] == [expected[0], expected[2]]
        assert all(token in step for token, step in zip(answers[1], masks[1].steps, strict=True))


class LongStepChecks(Checks):
    """What engines do that say from within a long call how far it is."""

    def test_the_pulse_changes_when_something_is_computed_and_only_then(
        self, open_engine: OpenEngine
    ) -> None:
        engine = open_engine()
        assert isinstance(engine, LongSteps)
        driver = Driver(engine)
        engine.pulse()
        for number in range(3):
            before = engine.pulse()
            assert engine.pulse() == before
            driver.add(number, prompt(number, 20))
            driver.step()
            # None: a device computes, and cannot be asked
            assert before is None or engine.pulse() != before


class InterruptChecks(Checks):
    """What engines do whose steps others end early."""

    def test_a_prompt_that_is_interrupted_all_the_time_is_computed_and_right(
        self, open_engine: OpenEngine
    ) -> None:
        engine = open_engine()
        assert isinstance(engine, InterruptibleSteps)
        driver, tokens = Driver(engine), prompt(1, 300)
        expected = driver.answer(tokens, 8)
        engine.trim()
        is_done = threading.Event()

        def disturb() -> None:
            while not is_done.wait(0.001):
                engine.interrupt()

        other = threading.Thread(target=disturb)
        other.start()
        try:
            answer = driver.answer(tokens, 8)
        finally:
            is_done.set()
            other.join()
        assert len(answer) == 8
        assert not self.is_exact or answer == expected
