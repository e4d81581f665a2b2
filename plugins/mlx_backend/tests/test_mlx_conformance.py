"""What every backend does."""

from __future__ import annotations

import pytest

from lmx_kernel.testing.conformance.backend import BackendConformance


class TestMlx(BackendConformance):
    module = "lmx_mlx_backend.backend"
    file = "model.safetensors"

    @pytest.fixture(autouse=True)
    def _model(self, models):
        self.source = models("llama")

    def write_model(self, path):
        for file in self.source.iterdir():
            (path.parent / file.name).write_bytes(file.read_bytes())
