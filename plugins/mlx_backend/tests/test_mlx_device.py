"""What is known of the device without importing an engine."""

from __future__ import annotations

import pytest
from lmx_mlx_backend import device
from lmx_mlx_backend.backend import MlxBackend

TOOL = """#!/bin/sh
{do}
"""


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """Put a driver's tool in place that does as it is told, beside a build of MLX that uses it."""

    def install(do):
        tool = tmp_path / "nvidia-smi"
        tool.write_text(TOOL.format(do=do))
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        monkeypatch.setattr(device, "is_cpu", lambda wanted: wanted == "cpu")

    return install


def test_the_smallest_gpu_counts(driver):
    driver("echo 81559; echo 24576")
    assert MlxBackend().device_bytes({}) == 24576 << 20


def test_a_model_on_the_cpu_takes_the_machine_s_memory(driver):
    driver("echo 81559")
    assert MlxBackend().device_bytes({"device": "cpu"}) is None


@pytest.mark.parametrize("do", ["exit 9", "echo '[N/A]'", "true"])
def test_a_tool_that_does_not_tell_is_no_harm(driver, do):
    driver(do)
    assert MlxBackend().device_bytes({}) is None


def test_without_a_gpu_there_is_none(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert MlxBackend().device_bytes({}) is None
