"""What the GPU of a Mac leaves to models."""

from __future__ import annotations

import subprocess
import sys

import llama_cpp
import pytest
from lmx_gguf_backend import device
from lmx_gguf_backend.backend import GgufBackend

from lmx_kernel.types import DeviceMemory

GIB = 1 << 30


@pytest.fixture
def mac(monkeypatch):
    """A Mac of 16 GiB."""
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(device, "machine_bytes", lambda: 16 * GIB)


@pytest.mark.usefixtures("mac")
def test_on_a_mac_models_get_what_the_library_says_of_the_gpu(monkeypatch):
    monkeypatch.setattr(device, "gpu_sizes", lambda: [12 * GIB])
    assert GgufBackend().device_memory({}) == DeviceMemory(12 * GIB, is_shared=True)
    assert GgufBackend().device_memory({"gpu_layers": 0}) is None


@pytest.mark.usefixtures("mac")
@pytest.mark.parametrize(
    "error",
    [
        None,
        OSError(11, "Resource temporarily unavailable"),
        subprocess.CalledProcessError(1, "python"),
        subprocess.TimeoutExpired("python", 20),
        ValueError("no JSON"),
    ],
    ids=repr,
)
def test_where_the_library_does_not_say_models_get_the_usual_share(monkeypatch, error):
    def sizes():
        if error:
            raise error
        return []

    monkeypatch.setattr(device, "gpu_sizes", sizes)
    assert GgufBackend().device_memory({}) == DeviceMemory(16 * GIB * 2 // 3, is_shared=True)


def test_elsewhere_models_may_be_in_the_machine_s_memory(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    assert GgufBackend().device_memory({}) is None


def test_the_library_itself_is_asked():
    assert bool(device.gpu_sizes()) == bool(llama_cpp.llama_supports_gpu_offload())
