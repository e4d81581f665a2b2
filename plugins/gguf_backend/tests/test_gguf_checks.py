"""The checks that every engine passes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from lmx_gguf_backend import interruption

from lmx_kernel.engine import Engine
from lmx_kernel.testing.conformance.engine import EngineChecks, OpenEngine
from lmx_kernel.testing.conformance.engine_features import (
    InterruptChecks,
    LongStepChecks,
    MaskChecks,
    PrefixChecks,
    SamplingChecks,
)
from lmx_kernel.testing.conformance.logits import LogitsChecks
from lmx_kernel.testing.driver import Driver


class TestGgufEngine(
    EngineChecks, PrefixChecks, SamplingChecks, MaskChecks, LogitsChecks, LongStepChecks
):
    is_exact = False

    @pytest.fixture
    def open_engine(self, open_tiny: Callable[..., Driver]) -> OpenEngine:
        return lambda **options: open_tiny(**options).engine

    @pytest.fixture
    def nan_engine(self, tiny, tmp_path: Path, open_tiny: Callable[..., Driver]) -> Engine:
        shape, kind, data = tiny.tensors["token_embd.weight"]
        size = 4 * shape[0]
        row = bytes.fromhex("0000c07f") * shape[0]  # NaN, for token 10 only
        data = data[: 10 * size] + row + data[11 * size :]
        tiny.tensors["token_embd.weight"] = shape, kind, data
        return open_tiny(path=tiny.write(tmp_path / "nan.gguf")).engine

    def slow_down(self, engine: Engine) -> None:
        budget = engine._computation.budget  # type: ignore[attr-defined]
        budget.row_s, budget.tile_row_s = 0.0039, 0.03


class TestInterruptions(InterruptChecks):
    is_exact = False

    @pytest.fixture
    def open_engine(
        self, open_tiny: Callable[..., Driver], monkeypatch: pytest.MonkeyPatch
    ) -> OpenEngine:
        monkeypatch.setattr(interruption, "WORTH_S", -1.0)  # the tiny model computes in no time
        return lambda **options: open_tiny(**options).engine
