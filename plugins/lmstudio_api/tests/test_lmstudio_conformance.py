"""What every surface does."""

from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import AsyncMock

import pytest

from lmx_kernel.testing.conformance.surface import Ask, SurfaceConformance
from lmx_kernel.testing.stub_kernel import MODEL


class TestLMStudio(SurfaceConformance):
    module = "lmx_lmstudio_api.plugin"
    requires = ("lmx_openai_api.plugin",)
    own_words = frozenset({"model_not_found"})
    beside = frozenset({"/lmstudio-greeting"})

    @pytest.fixture
    def kernel(self, kernel, monkeypatch):
        monkeypatch.setattr(type(kernel), "stored_answers", SimpleNamespace(put=AsyncMock()))
        return kernel

    def asks(self, text):
        chat = {"model": MODEL, "messages": [{"role": "user", "content": text}]}
        return [
            Ask("/api/v0/chat/completions", chat),
            Ask("/api/v0/chat/completions", chat | {"stream": True}, streams=True),
            Ask("/api/v1/chat", {"model": MODEL, "input": text, "store": False}),
        ]
