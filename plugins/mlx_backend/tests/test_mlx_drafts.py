"""Texts are the same with drafts, on a CPU and one step ahead as on a GPU."""

from __future__ import annotations

import json
import random

import pytest
from lmx_mlx_backend.backend import MlxBackend

from lmx_kernel.engine.drafts import CopySource
from lmx_kernel.errors import ModelUnusableError
from lmx_kernel.testing.conformance.draft_model import DraftModelChecks
from lmx_kernel.testing.conformance.drafts import DraftChecks, Foresight, FreeRows
from lmx_kernel.testing.driver import Driver
from lmx_kernel.types import Sampling


class TestMlxDrafts(DraftChecks):
    def draft_freely(self, engine):
        engine._steps.drafting.costs = FreeRows()

    @pytest.fixture(params=[False, True], ids=["", "ahead"])
    def open_engine(self, open_model, request):
        def opener(context=512, parallel=4, cache=2048):
            engine = open_model("llama", context, parallel, cache).engine
            engine._steps.ahead = request.param
            return engine

        return opener


class TestMlxDraftModel(DraftModelChecks):
    def draft_freely(self, engine):
        engine._steps.drafting.costs = FreeRows()

    @pytest.fixture(params=[False, True], ids=["", "ahead"])
    def open_engine(self, open_model, request):
        def opener(context=512, parallel=4, cache=2048):
            engine = open_model("llama", context, parallel, cache).engine
            engine._steps.ahead = request.param
            return engine

        return opener


@pytest.mark.parametrize("name", ["gemma3_text", "mamba", "lfm2"])
def test_models_that_cannot_go_back_draft_for_none(open_draft_rows, name: str) -> None:
    with pytest.raises(ModelUnusableError, match="can draft"):
        open_draft_rows(name)


def test_vocabularies_are_compared_by_the_texts_of_their_tokens(llama, models, card_of) -> None:
    """However the file is written."""
    backend, file = MlxBackend(), llama / "tokenizer.json"
    data = json.loads(file.read_text())
    same = backend.vocabulary(card_of(models("llama")))
    data["post_processor"] = None
    file.write_text(json.dumps(data, indent=3))
    assert backend.vocabulary(card_of(llama)) == same
    vocabulary = data["model"]["vocab"]
    vocabulary["other"] = vocabulary.pop(list(vocabulary)[-1])
    file.write_text(json.dumps(data))
    assert backend.vocabulary(card_of(llama)) != same


@pytest.mark.parametrize("name", ["gemma3_text", "mamba", "lfm2"])
def test_models_that_cannot_go_back_compute_no_drafts(open_model, name: str) -> None:
    driver = open_model(name)
    tokens = [0, 5, 6, 7, 8, 9]
    plain = driver.answer(tokens, 20)
    assert driver.answer(tokens, 20, drafts=Foresight(tokens + plain, 0, 0.0)) == plain
    assert not any(output.drafted for step in driver.steps for output in step.outputs)


def compare(driver: Driver, count: int, length: int) -> None:
    """Compare texts alone without drafts with those of changing batches with copied ones."""
    driver.engine._steps.drafting.costs = FreeRows()
    dice = random.Random(count)
    cases = []
    for number in range(count):
        words = [[dice.randrange(2, 250) for _ in range(6)] for _ in range(4)]
        prompt = [0, *(token for _ in range(8) for token in dice.choice(words))]
        sampling = Sampling(temperature=number % 2, seed=number, top_k=[0, 40, 3][number % 3])
        cases.append((prompt, sampling))
    plain = [driver.answer(prompt, length, sampling=sampling) for prompt, sampling in cases]
    answers: dict[int, list[int]] = {}
    for start in range(0, count, 5):
        numbers = range(start, min(start + 5, count))
        for number in numbers:
            prompt, sampling = cases[number]
            seen = prompt + plain[number] if number % 2 else prompt  # half see their own answer
            source = CopySource(prompt, seen[len(prompt) :])
            driver.add(number, prompt, sampling=sampling, drafts=source)
            driver.step()
        answers |= zip(numbers, driver.run(*numbers, count=length), strict=True)
    assert [answers[number] for number in range(count)] == plain
    outputs = [output for step in driver.steps for output in step.outputs if output.id < count]
    assert sum(output.accepted for output in outputs) > count * length / 8


def test_copied_drafts_change_no_text(open_model) -> None:
    compare(open_model(), 20, 40)


@pytest.mark.full
def test_copied_drafts_change_none_of_500_texts(open_model) -> None:
    compare(open_model(), 500, 60)
