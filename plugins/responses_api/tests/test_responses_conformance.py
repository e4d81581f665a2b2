"""What every surface does."""

from __future__ import annotations

import pytest

from lmx_kernel.testing.conformance.surface import Ask, SurfaceConformance
from lmx_kernel.testing.stub_kernel import MODEL


class TestResponses(SurfaceConformance):
    module = "lmx_responses_api.plugin"
    heavy = frozenset({"openai"})

    @pytest.fixture
    def kernel(self, kernel):
        return kernel

    def asks(self, text):
        body = {"model": MODEL, "input": text, "store": False}
        return [
            Ask("/v1/responses", body),
            Ask("/v1/responses", body | {"stream": True}, streams=True),
        ]
