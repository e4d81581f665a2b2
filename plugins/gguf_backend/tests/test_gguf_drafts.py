"""Texts are the same with drafts, but for near-ties."""

from __future__ import annotations

import random

import pytest
from lmx_gguf_backend.backend import GgufBackend

from lmx_kernel.engine.drafts import CopySource
from lmx_kernel.testing.conformance.draft_model import DraftModelChecks
from lmx_kernel.testing.conformance.drafts import DraftChecks, Foresight, FreeRows
from lmx_kernel.testing.driver import Driver
from lmx_kernel.testing.near_ties import is_near_tie
from lmx_kernel.types import Location, Sampling


class TestGgufDrafts(DraftChecks):
    is_exact = False

    def draft_freely(self, engine):
        engine._drafting.costs = FreeRows()

    @pytest.fixture
    def open_engine(self, open_tiny):
        def opener(context=512, parallel=4, cache=2048):
            return open_tiny(context, parallel, cache).engine

        return opener


class TestGgufDraftModel(DraftModelChecks):
    is_exact = False

    def draft_freely(self, engine):
        engine._drafting.costs = FreeRows()

    @pytest.fixture
    def open_engine(self, open_tiny):
        def opener(context=512, parallel=4, cache=2048):
            return open_tiny(context, parallel, cache).engine

        return opener


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


def compare(driver: Driver, count: int, length: int) -> None:
    """Compare texts alone without drafts with those of changing batches with copied ones.

    Of such flat texts a quarter differs in batches without drafts, too: in near-ties only.
    """
    driver.engine._drafting.costs = FreeRows()
    dice = random.Random(count)
    cases = []
    for number in range(count):
        words = [[dice.randrange(3, 300) for _ in range(6)] for _ in range(4)]
        prompt = [1, *(token for _ in range(8) for token in dice.choice(words))]
        sampling = Sampling(temperature=number % 2, seed=number, top_k=[0, 40, 3][number % 3])
        cases.append((prompt, sampling))
    plain = [driver.answer(prompt, length, sampling=sampling) for prompt, sampling in cases]
    answers: dict[int, list[int]] = {}
    for start in range(0, count, 3):
        numbers = range(start, min(start + 3, count))
        for number in numbers:
            prompt, sampling = cases[number]
            seen = prompt + plain[number] if number % 2 else prompt  # half see their own answer
            source = CopySource(prompt, seen[len(prompt) :])
            driver.add(number, prompt, sampling=sampling, drafts=source)
            driver.step()
        answers |= zip(numbers, driver.run(*numbers, count=length), strict=True)
    outputs = [output for step in driver.steps for output in step.outputs if output.id < count]
    assert sum(output.accepted for output in outputs) > count * length / 8
    different = [number for number in range(count) if answers[number] != plain[number]]
    for number in different:
        prompt, sampling = cases[number]
        assert is_near_tie(driver, prompt, (plain[number], answers[number]), sampling)


def test_copied_drafts_change_nothing_but_near_ties(tiny_driver) -> None:
    compare(tiny_driver, 20, 40)


@pytest.mark.full
def test_copied_drafts_change_nothing_but_near_ties_in_500_texts(tiny_driver) -> None:
    compare(tiny_driver, 500, 60)


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
