"""Texts are the same with drafts, but for near-ties."""

from __future__ import annotations

import pytest
from attrs import evolve
from lmx_gguf_backend.backend import GgufBackend

from lmx_kernel.engine.draft_model import DraftModel, ModelDrafts
from lmx_kernel.engine.numpy_sampler import Sampler
from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.testing.conformance.draft_model import DraftModelChecks
from lmx_kernel.testing.conformance.draft_texts import DraftTextChecks
from lmx_kernel.testing.conformance.drafts import DraftChecks, Foresight, FreeRows
from lmx_kernel.testing.harness import running_kernel
from lmx_kernel.testing.near_ties import is_near_tie
from lmx_kernel.types import (
    EngineSpec,
    GenerationRequest,
    LoadOptions,
    Location,
    Sampling,
    SamplingRequest,
    TokenPrompt,
)


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


async def test_a_request_names_a_draft_model(tiny, tiny_path, tmp_path) -> None:
    """Through real workers: the same text; one of another vocabulary is refused."""
    kind, texts = tiny.metadata["tokenizer.ggml.tokens"]
    for name in ("big", "small", "other"):
        (tmp_path / "models" / name).mkdir(parents=True)
        if name != "other":
            (tmp_path / "models" / name / f"{name}.gguf").symlink_to(tiny_path)
    tiny.metadata["tokenizer.ggml.tokens"] = kind, [*texts[:-1], "\u2581zz"]
    tiny.write(tmp_path / "models" / "other" / "other.gguf")
    plugins = ("lmx_gguf_backend.backend", "lmx_model_folders.plugin")
    config = "[gguf]\nthreads = 1\n[model_folders]\nhugging_face = false\nlm_studio = false\n"
    request = GenerationRequest(
        model="big",
        prompt=TokenPrompt((1, 20, 30, 40, 50)),
        sampling=SamplingRequest(temperature=0),
        max_tokens=24,
    )
    async with running_kernel(tmp_path, {}, config, plugins) as stage:
        texts, memory = [], []
        for draft in ("", "small"):
            with await stage.kernel.generate(evolve(request, draft_model=draft)) as answer:
                events = [event async for event in answer]
            texts.append([one for event in events for one in getattr(event, "tokens", ())])
            assert answer.usage().draft_model == draft
            (status,) = stage.kernel.model_statuses()
            memory.append(status.memory_bytes)
        assert texts[0] == texts[1]
        assert memory[1] == 2 * memory[0]
        with pytest.raises(InvalidRequestError, match="vocabularies differ"):
            await stage.kernel.generate(evolve(request, draft_model="other"))


@pytest.mark.full
def test_a_real_model_that_drafts_for_itself_is_nearly_always_right(demo, demo_path) -> None:
    from lmx_gguf_backend.worker import lmx_open_draft_model

    options = LoadOptions(context_length=2048, parallel=4, cache_tokens=4096)
    card = GgufBackend().identify(Location("demo", demo_path.parent, (demo_path.name,)))[0]
    rows = lmx_open_draft_model(EngineSpec(card=card, options=options), lambda *_: None)
    model = DraftModel("demo", rows, Sampler)
    costs, demo.engine._drafting.costs = demo.engine._drafting.costs, FreeRows()
    sampling = Sampling(temperature=0.8, seed=3)
    encode = demo.engine.tokenizer.encode
    for text in ("The lighthouse keeper looked at the sea, and", "def total(items):\n"):
        tokens = encode(text, add_special=True, parse_special=True)
        plain = demo.answer(tokens, 64, sampling=sampling)
        model.costs = FreeRows(0.001)
        drafts = ModelDrafts(model, sampling, len(tokens))
        steps = len(demo.steps)
        found = demo.answer(tokens, 64, sampling=sampling, draft_model=drafts)
        outputs = [output for step in demo.steps[steps:] for output in step.outputs]
        drafted = sum(output.drafted for output in outputs)
        assert sum(output.accepted for output in outputs) > 0.9 * drafted > 30
        assert found == plain or is_near_tie(demo, tokens, (plain, found), sampling)
        drafts.close()
    demo.engine._drafting.costs = costs
    rows.close()
