"""Tests for backends whose models draft for each other: texts stay the same, and come in fewer
steps.

Used like :class:`~lmx_kernel.testing.conformance.engine.EngineChecks`, with the same
``open_engine``, and a fixture ``open_rows`` that opens a model to draft.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lmx_kernel.engine.draft_model import DraftModel, ModelDrafts
from lmx_kernel.engine.draft_rows import DraftPiece, DraftRows
from lmx_kernel.engine.numpy_sampler import Sampler
from lmx_kernel.testing.conformance.drafts import (
    COUNT,
    FREE,
    SAMPLINGS,
    FreeRows,
    TextChecks,
)
from lmx_kernel.testing.conformance.engine import OpenEngine, prompt
from lmx_kernel.testing.driver import GREEDY, Driver
from lmx_kernel.testing.mask import ScriptedMask, choices
from lmx_kernel.types import Sampling

OpenRows = Callable[..., DraftRows]
"""Opens a draft model: ``open_rows(is_same=True, slots=4, context=512, cache=2048)``. Where
``is_same``, it is the model of ``open_engine``; else another one of the same vocabulary.
"""


class DraftModelChecks(TextChecks):
    """For backends whose models draft for each other."""

    def open_model(self, open_rows: OpenRows, **options: Any) -> DraftModel:
        """Return a draft model that costs next to nothing."""
        model = DraftModel("draft", open_rows(**options), Sampler)
        model.costs = FreeRows(0.001)
        return model

    def drafts(
        self, model: DraftModel, tokens: list[int], sampling: Sampling = GREEDY, produced: int = 0
    ) -> ModelDrafts:
        """Return the drafts of a sequence."""
        return ModelDrafts(model, sampling, len(tokens) - produced)

    def answer(
        self, driver: Driver, model: DraftModel, tokens: list[int], count: int, **more: Any
    ) -> list[int]:
        """Return what follows ``tokens``, with drafts."""
        made = self.drafts(model, tokens, more.get("sampling", GREEDY), more.get("produced", 0))
        answer = driver.answer(tokens, count, draft_model=made, **more)
        made.close()
        return answer

    def test_rows_are_the_same_in_pieces_and_in_batches(self, open_rows: OpenRows) -> None:
        rows = open_rows()
        texts = [prompt(seed, 20 + seed) for seed in range(3)]
        alone = []
        for slot, tokens in enumerate(texts):
            alone.append(np.array(_logits(rows, DraftPiece(slot, tokens, 0))))
            assert rows.cut(slot, 0)
        first = [DraftPiece(slot, tokens[:9], 0) for slot, tokens in enumerate(texts)]
        assert rows.compute([*first[:2], DraftPiece(2, texts[2][:9], 0, is_drawn=False)])
        assert rows.compute([DraftPiece(0, [7, 7, 7], 9)])
        assert rows.cut(0, 9), "what was computed in vain can be forgotten"
        found = rows.compute([DraftPiece(slot, one[9:], 9) for slot, one in enumerate(texts)])
        assert found is not None
        for one, other in zip(alone, found, strict=True):
            assert np.abs(one - other).max() < 0.05
            assert other.dtype == np.float32
            assert other.shape == (len(rows.token_bytes),)

    def test_a_text_is_the_same_with_a_draft_model(
        self, open_engine: OpenEngine, open_rows: OpenRows
    ) -> None:
        """Whatever the sampling, and however good the model is; where it is the same one, most of
        what it drafts is right.
        """
        driver = self.open_driver(open_engine)
        models = [self.open_model(open_rows, is_same=same) for same in (True, False)]
        for seed, sampling in enumerate(SAMPLINGS):
            tokens = prompt(seed, 30)
            plain = driver.answer(tokens, COUNT, sampling=sampling)
            steps = len(driver.steps)
            found = self.answer(driver, models[0], tokens, COUNT, sampling=sampling)
            assert len(driver.steps) - steps < COUNT * 0.6
            self.check_same(driver, tokens, plain, found, sampling)
            found = self.answer(driver, models[1], tokens, COUNT, sampling=sampling)
            self.check_same(driver, tokens, plain, found, sampling)
        assert models[0].share > 0.8 > models[1].share

    def test_texts_in_a_batch_are_the_same_with_a_draft_model(
        self, open_engine: OpenEngine, open_rows: OpenRows
    ) -> None:
        """Three seeds of one prompt, a mask, log-probabilities, and one without drafts."""
        driver = self.open_driver(open_engine, parallel=8, cache=4096)
        model = self.open_model(open_rows, slots=8, cache=4096)
        script = [*choices(2, 8), *({token} for token in range(60, 66)), FREE, *choices(3, 20)]
        prompts = [*[prompt(1, 20)] * 3, *(prompt(seed, 12 + 9 * seed) for seed in range(3))]
        more: list[dict[str, Any]] = [
            *({"sampling": Sampling(temperature=1.0, seed=seed)} for seed in range(3)),
            {"mask": script},
            {"logprobs": 2, "sampling": SAMPLINGS[3]},
            {},
        ]
        texts = []
        for start in (0, 10):
            for number, (tokens, fields) in enumerate(zip(prompts, more, strict=True)):
                own = fields | ({"mask": ScriptedMask(*script)} if "mask" in fields else {})
                if start and number < 5:
                    own["draft_model"] = self.drafts(model, tokens, own.get("sampling", GREEDY))
                driver.add(start + number, tokens, **own)
            texts.append(driver.run(*range(start, start + 6), count=COUNT))
        for number, (plain, found) in enumerate(zip(*texts, strict=True)):
            sampling, mask = more[number].get("sampling", GREEDY), more[number].get("mask", ())
            self.check_same(driver, prompts[number], plain, found, sampling, mask)
        outputs = [output for step in driver.steps for output in step.outputs]
        assert sum(output.accepted for output in outputs) > COUNT
        assert not any(output.drafted for output in outputs if output.id in (*range(6), 15))

    def test_a_resumed_sequence_continues_as_without(
        self, open_engine: OpenEngine, open_rows: OpenRows
    ) -> None:
        driver, model = self.open_driver(open_engine), self.open_model(open_rows)
        for seed, sampling in enumerate(SAMPLINGS):
            tokens = prompt(seed, 40)
            whole = driver.answer(tokens, COUNT, sampling=sampling)
            resumed = [*tokens, *whole[:9]]
            found = self.answer(driver, model, resumed, 15, sampling=sampling, produced=9)
            self.check_same(driver, tokens, whole, whole[:9] + found, sampling)
        assert model.share > 0.8, "it draws for the places after the resume"

    def test_a_long_prompt_is_read_once_it_pays(
        self, open_engine: OpenEngine, open_rows: OpenRows
    ) -> None:
        """And a second one that begins alike is there already."""
        driver, model = self.open_driver(open_engine), self.open_model(open_rows)
        tokens = prompt(4, 200)
        plain = driver.answer(tokens, COUNT)
        for _ in range(2):
            model.costs = FreeRows(1.0)  # reading takes as long as four steps, so it never pays
            steps = len(driver.steps)
            assert self.answer(driver, model, tokens, COUNT) == plain
            drafted = [one.drafted for step in driver.steps[steps:] for one in step.outputs]
            assert not any(drafted)
            model.costs = FreeRows(0.001)
            self.check_same(driver, tokens, plain, self.answer(driver, model, tokens, COUNT))

    def test_there_may_be_more_sequences_than_room(
        self, open_engine: OpenEngine, open_rows: OpenRows
    ) -> None:
        """Those that find no slot, or no cells, or no context, go on without drafts."""
        driver = self.open_driver(open_engine, parallel=8, cache=4096)
        prompts = [prompt(seed, 50) for seed in range(4)]
        plain = [driver.answer(tokens, COUNT) for tokens in prompts]
        for options in ({"slots": 2}, {"cache": 128}, {"context": 64, "cache": 256}):
            model = self.open_model(open_rows, **options)
            start = len(driver.tokens)
            for number, tokens in enumerate(prompts, start):
                driver.add(number, tokens, draft_model=self.drafts(model, tokens))
            found = driver.run(*range(start, start + 4), count=COUNT)
            for tokens, one, other in zip(prompts, plain, found, strict=True):
                self.check_same(driver, tokens, one, other)


def _logits(rows: DraftRows, piece: DraftPiece) -> Any:
    found = rows.compute([piece])
    assert found is not None
    return found[0]
