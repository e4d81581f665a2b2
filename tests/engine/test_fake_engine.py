"""The fake engine keeps the promises of every engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmx_kernel.testing.conformance.engine import EngineChecks
from lmx_kernel.testing.conformance.engine_features import LongStepChecks, MaskChecks, PrefixChecks
from lmx_kernel.testing.conformance.logits import LogitsChecks
from lmx_kernel.testing.fake_engine import VOCABULARY, lmx_open_engine
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import write_fake_models
from lmx_kernel.types import EngineSpec, LoadOptions, ModelCard


class TestFakeEngine(EngineChecks, PrefixChecks, MaskChecks, LogitsChecks, LongStepChecks):
    vocabulary = VOCABULARY

    @pytest.fixture
    def open_engine(self, tmp_path: Path):
        def opener(context=512, parallel=4, cache=2048, **script):
            write_fake_models(tmp_path, {"model": FakeModel(shares_prefixes=True, **script)})
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

    @pytest.fixture
    def nan_engine(self, open_engine):
        return open_engine(sour="\n")  # which is token 10
