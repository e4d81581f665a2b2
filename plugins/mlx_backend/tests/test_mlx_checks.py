"""The checks that every engine passes."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from lmx_kernel.engine import Engine
from lmx_kernel.testing.conformance.engine import EngineChecks, OpenEngine
from lmx_kernel.testing.conformance.engine_features import (
    LongStepChecks,
    MaskChecks,
    PrefixChecks,
    SamplingChecks,
)
from lmx_kernel.testing.conformance.logits import LogitsChecks
from lmx_kernel.testing.driver import Driver


class TestMlxEngine(
    EngineChecks, PrefixChecks, SamplingChecks, MaskChecks, LogitsChecks, LongStepChecks
):
    @pytest.fixture(params=[False, True], ids=["cpu", "ahead"])
    def open_engine(
        self, open_model: Callable[..., Driver], request: pytest.FixtureRequest
    ) -> OpenEngine:
        """Engines as on a CPU, and one step ahead as on a GPU."""

        def opener(context: int = 512, parallel: int = 4, cache: int = 2048) -> Engine:
            engine = open_model(context=context, parallel=parallel, cache=cache).engine
            engine._steps.ahead = request.param
            return engine

        return opener

    @pytest.fixture
    def nan_engine(self, open_engine: OpenEngine, monkeypatch, wrap_module) -> Engine:
        import mlx.core as mx

        engine = open_engine()

        def poisoned(module, tokens, cache):
            logits = module(tokens, cache=cache)
            return mx.where((tokens == 10)[..., None], math.nan, logits)

        wrap_module(engine, poisoned)
        return engine

    def slow_down(self, engine: Engine) -> None:
        engine._budget.row_s = 1.0
