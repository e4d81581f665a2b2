import numpy as np
import pytest
from lmx_kept_engine import VOCABULARY, KeptEngine, Model

from lmx_kernel.testing.conformance.backend import ServedConformance
from lmx_kernel.testing.conformance.engine import EngineChecks
from lmx_kernel.testing.conformance.engine_features import MaskChecks, SamplingChecks
from lmx_kernel.types import LoadOptions


class TestKept(ServedConformance):
    module = "lmx_kept"
    file = "tiny.kept"

    def write_model(self, path):
        path.write_text('{"context_length": 512, "seed": 7}')


def open_engine(context=512, parallel=4, cache=2048, model=Model):
    options = LoadOptions(context_length=context, parallel=parallel, cache_tokens=cache)
    return KeptEngine(model(7), options)


class NanModel(Model):
    def logits(self, tokens):
        return super().logits(tokens) if tokens[-1] != 10 else np.full(VOCABULARY, np.nan)


class TestEngine(EngineChecks, SamplingChecks, MaskChecks):
    @pytest.fixture
    def open_engine(self):
        return open_engine

    @pytest.fixture
    def nan_engine(self):
        return open_engine(model=NanModel)
