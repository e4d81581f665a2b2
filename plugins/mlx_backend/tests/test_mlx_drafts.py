"""Texts are the same with drafts, on a CPU and one step ahead as on a GPU."""

from __future__ import annotations

import json

import pytest
from lmx_mlx_backend.backend import MlxBackend

from lmx_kernel.errors import ModelUnusableError
from lmx_kernel.testing.conformance.draft_model import DraftModelChecks
from lmx_kernel.testing.conformance.draft_texts import DraftTextChecks
from lmx_kernel.testing.conformance.drafts import DraftChecks, Foresight, FreeRows


class MlxEngines:
    """Tiny models, whose rows are free."""

    def draft_freely(self, engine):
        engine._steps.drafting.costs = FreeRows()

    @pytest.fixture(params=[False, True], ids=["", "ahead"])
    def open_engine(self, open_model, request):
        def opener(context=512, parallel=4, cache=2048):
            engine = open_model("llama", context, parallel, cache).engine
            engine._steps.ahead = request.param
            return engine

        return opener


class TestMlxDrafts(MlxEngines, DraftChecks):
    pass


class TestMlxDraftModel(MlxEngines, DraftModelChecks):
    pass


class TestMlxDraftTexts(MlxEngines, DraftTextChecks):
    pass


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
