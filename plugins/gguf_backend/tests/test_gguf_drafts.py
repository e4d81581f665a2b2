"""Texts are the same with drafts, but for near-ties."""

from __future__ import annotations

import pytest
from lmx_gguf_backend.backend import GgufBackend

from lmx_kernel.testing.conformance.draft_model import DraftModelChecks
from lmx_kernel.testing.conformance.draft_texts import DraftTextChecks
from lmx_kernel.testing.conformance.drafts import DraftChecks, Foresight, FreeRows
from lmx_kernel.types import Location


class GgufEngines:
    """Tiny models, whose rows are free."""

    is_exact = False

    def draft_freely(self, engine):
        engine._drafting.costs = FreeRows()

    @pytest.fixture
    def open_engine(self, open_tiny):
        def opener(context=512, parallel=4, cache=2048):
            return open_tiny(context, parallel, cache).engine

        return opener


class TestGgufDrafts(GgufEngines, DraftChecks):
    pass


class TestGgufDraftModel(GgufEngines, DraftModelChecks):
    pass


class TestGgufDraftTexts(GgufEngines, DraftTextChecks):
    """Of such flat texts a quarter differs in batches without drafts, too: in near-ties only."""


def test_drafts_take_no_cells_from_others(open_tiny) -> None:
    """In a cache that prefixes have filled up, drafts are the first to do without."""
    driver = open_tiny(context=256, parallel=3, cache=256)
    driver.engine._drafting.costs = FreeRows()
    prompts = [[1, *(3 + (place * number) % 280 for place in range(90))] for number in (7, 11)]
    plain = [driver.answer(tokens, 30) for tokens in prompts]
    for number, tokens in enumerate(prompts):
        drafts = Foresight(tokens + plain[number], number)
        driver.add(number, tokens, drafts=drafts)
    assert driver.run(0, 1, count=30) == plain
    outputs = [output for step in driver.steps for output in step.outputs]
    assert any(output.accepted for output in outputs)


def test_vocabularies_are_compared_by_the_bytes_of_their_tokens(tiny, tmp_path) -> None:
    """Neither names nor padding at the end count."""
    kind, texts = tiny.metadata["tokenizer.ggml.tokens"]
    found = {}
    for name, tokens in {
        "same": texts,
        "padded": [*texts, "[PAD300]", "[PAD301]"],
        "other": [*texts[:-1], "\u2581zz"],
        "longer": [*texts, "\u2581zz"],
    }.items():
        tiny.metadata["tokenizer.ggml.tokens"] = kind, tokens
        tiny.metadata["general.name"] = (8, name)
        path = tiny.write(tmp_path / f"{name}.gguf")
        backend = GgufBackend()
        card = backend.identify(Location(name, tmp_path, (path.name,)))[0]
        found[name] = backend.vocabulary(card)
    assert found["same"] == found["padded"]
    assert len({found[name] for name in ("same", "other", "longer")}) == 3
