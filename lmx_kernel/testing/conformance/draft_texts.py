"""Many texts with drafts of all sources, in changing batches: the same as alone without drafts.

Used like :class:`~lmx_kernel.testing.conformance.draft_model.DraftModelChecks`, with its fixtures.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from attrs import define

from lmx_kernel.engine.draft_model import DraftModel, ModelDrafts
from lmx_kernel.engine.drafts import CopySource
from lmx_kernel.engine.numpy_sampler import Sampler
from lmx_kernel.testing.conformance.draft_model import OpenRows
from lmx_kernel.testing.conformance.drafts import FreeRows, TextChecks
from lmx_kernel.testing.conformance.engine import OpenEngine
from lmx_kernel.types import Sampling

TOKENS = 40
BATCH = 4


@define
class Case:
    """One text."""

    prompt: list[int]
    sampling: Sampling
    plain: list[int]

    @classmethod
    def of(cls, number: int, dice: random.Random) -> Case:
        """Return a prompt that repeats itself, and one of several samplings."""
        words = [[dice.randrange(3, 300) for _ in range(6)] for _ in range(4)]
        prompt = [1, *(token for _ in range(8) for token in dice.choice(words))]
        penalty = 1.2 if number % 7 == 6 else 1.0
        top_k = (0, 40, 3)[number % 3]
        sampling = Sampling(
            temperature=number % 2, seed=number, top_k=top_k, repetition_penalty=penalty
        )
        return cls(prompt, sampling, [])

    def sources(self, number: int, models: list[DraftModel]) -> dict[str, Any]:
        """Return where its drafts come from: its own text, copies, or a model good or bad."""
        expected = self.plain if number % 4 == 0 else ()
        fields: dict[str, Any] = {}
        if number % 4 != 2:
            fields["drafts"] = CopySource(self.prompt, expected)
        if number % 4 >= 2:
            fields["draft_model"] = ModelDrafts(
                models[number % 4 - 2], self.sampling, len(self.prompt)
            )
        return fields


class DraftTextChecks(TextChecks):
    """For engines that compute drafts, and whose models draft for each other."""

    def test_texts_are_the_same(self, open_engine: OpenEngine, open_rows: OpenRows) -> None:
        """With drafts that are copied, predicted and made by models."""
        self.compare(open_engine, open_rows, 16)

    @pytest.mark.full
    def test_500_texts_are_the_same(self, open_engine: OpenEngine, open_rows: OpenRows) -> None:
        """As above."""
        self.compare(open_engine, open_rows, 500)

    def compare(self, open_engine: OpenEngine, open_rows: OpenRows, count: int) -> None:
        """Compare texts alone without drafts with those in batches of which one joins after the
        other.
        """
        driver = self.open_driver(open_engine, parallel=BATCH + 2, cache=4096)
        models = [
            DraftModel("m", open_rows(is_same=same, slots=BATCH), Sampler) for same in (True, False)
        ]
        dice = random.Random(count)
        cases = [Case.of(number, dice) for number in range(count)]
        for start in range(0, count, BATCH):
            numbers = range(start, min(start + BATCH, count))
            fields: list[dict[str, Any]] = []
            for number in numbers:
                case = cases[number]
                case.plain = driver.answer(case.prompt, TOKENS, sampling=case.sampling)
            for number in numbers:
                case = cases[number]
                for model in models:
                    model.costs = FreeRows(0.001)
                fields.append(case.sources(number, models))
                driver.add(number, case.prompt, sampling=case.sampling, **fields[-1])
                driver.step()
            found = driver.run(*numbers, count=TOKENS)
            for given in fields:
                if "draft_model" in given:
                    given["draft_model"].close()
            for number, text in zip(numbers, found, strict=True):
                case = cases[number]
                self.check_same(driver, case.prompt, case.plain, text, case.sampling)
        outputs = [one for step in driver.steps for one in step.outputs if one.id < count]
        assert sum(one.accepted for one in outputs) > count * TOKENS / 8
        assert {one.draft_model for one in outputs if one.drafted} == {"", "m"}
