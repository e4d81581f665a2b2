"""What every backend does."""

from __future__ import annotations

import pytest

from lmx_kernel.testing.conformance.backend import BackendConformance


class TestGguf(BackendConformance):
    module = "lmx_gguf_backend.backend"
    heavy = frozenset({"lmx_gguf_backend.worker"})
    file = "tiny.gguf"

    @pytest.fixture(autouse=True)
    def _model(self, tiny):
        self.tiny = tiny

    def write_model(self, path):
        self.tiny.write(path)
