"""Downloads do what LMX expects of every kind of job."""

from __future__ import annotations

import random
import shutil

import pytest
from lmx_hub.kind import DownloadSpec

from lmx_kernel.testing.conformance.job import JobConformance

WEIGHTS = random.Random(3).randbytes(1 << 20)


class TestDownloads(JobConformance):
    module = "lmx_hub.plugin"

    @pytest.fixture
    def folder(self, hub, tmp_path):
        for repo in ("org/one", "org/two"):
            hub.put(repo, {"model.safetensors": WEIGHTS + repo.encode()})
        hub.pause_s = 0.005  # so that there is a middle to stop in
        self.endpoint = hub.url
        folder = tmp_path / "models"
        folder.mkdir()
        return folder

    def config(self, folder):
        return (
            f'[hub]\nfolder = "{folder}"\nendpoint = "{self.endpoint}"\n'
            "reserve_bytes = 0\nwait_s = 0\n"
        )

    def spec(self, folder):
        return DownloadSpec("org/one")

    def other_spec(self, folder):
        return DownloadSpec("org/two")

    def clear(self, folder):
        shutil.rmtree(folder)
        folder.mkdir()
