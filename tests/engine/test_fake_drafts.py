"""The fake engine computes drafts, as engines do."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmx_kernel.testing.conformance.drafts import DraftChecks
from lmx_kernel.testing.fake_engine import VOCABULARY, lmx_open_engine
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import write_fake_models
from lmx_kernel.types import EngineSpec, LoadOptions, ModelCard


class TestFakeDrafts(DraftChecks):
    vocabulary = VOCABULARY

    def draft_freely(self, engine):
        """It does."""

    @pytest.fixture
    def open_engine(self, tmp_path: Path):
        def opener(context=512, parallel=4, cache=2048):
            script = FakeModel(checks_drafts=True)
            write_fake_models(tmp_path, {"model": script})
            card = ModelCard(
                id="model",
                backend="fake",
                path=tmp_path / "model.fake.json",
                format="fake",
                architecture="fake",
                size_bytes=1,
                context_length=context,
            )
            options = LoadOptions(context_length=context, parallel=parallel, cache_tokens=cache)
            return lmx_open_engine(EngineSpec(card=card, options=options), lambda *_: None)

        return opener
