"""What every source of models does."""

from __future__ import annotations

import pytest

from lmx_kernel.testing.conformance.source import FILES, SourceConformance

OTHERS = "hugging_face = false\nlm_studio = false"


class TestPaths(SourceConformance):
    module = "lmx_model_folders.plugin"
    heavy = frozenset({"huggingface_hub"})
    source_name = "paths"

    def config(self, folder):
        paths = f'paths = ["{self.root(folder)}"]\nmay_delete = true'
        return f"[model_folders]\nhome = false\n{OTHERS}\n{paths}"


class TestForeignPaths(TestPaths):
    deletes = False
    test_many_folders_take_no_time = None

    def config(self, folder):
        return super().config(folder).replace("may_delete = true", "")


class TestHuggingFace(SourceConformance):
    module = "lmx_model_folders.plugin"
    source_name = "hugging_face"
    deletes = False

    @pytest.fixture(autouse=True)
    def _cache(self, folder, monkeypatch):
        monkeypatch.setenv("HF_HUB_CACHE", str(self.root(folder)))

    def put(self, folder, name):
        place = self.root(folder) / f"models--{name}" / "snapshots" / "abc"
        place.mkdir(parents=True)
        for file in FILES:
            (place / file).write_text(name)
        return place
