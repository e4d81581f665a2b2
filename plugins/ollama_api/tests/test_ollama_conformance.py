"""What every surface does."""

from __future__ import annotations

import pytest

from lmx_kernel.testing.conformance.surface import Ask, SurfaceConformance
from lmx_kernel.testing.stub_kernel import MODEL


class TestOllama(SurfaceConformance):
    module = "lmx_ollama_api.plugin"
    heavy = frozenset({"ollama"})
    own_words = frozenset({"model_not_found"})

    @pytest.fixture
    def kernel(self, kernel):
        return kernel

    @pytest.fixture
    def surfaces(self, surfaces):
        return [one for one in surfaces if one.name == "ollama"]  # the others ask no model

    def asks(self, text):
        chat = {"model": MODEL, "messages": [{"role": "user", "content": text}]}
        whole = {"model": MODEL, "prompt": text}
        return [
            Ask(f"/api/{path}", body | {"stream": streams}, streams=streams)
            for path, body in (("chat", chat), ("generate", whole))
            for streams in (False, True)
        ]
