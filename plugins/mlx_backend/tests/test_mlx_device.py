"""What is known of the device without importing an engine."""

from __future__ import annotations

from types import SimpleNamespace

import pynvml
import pytest
from lmx_mlx_backend import device
from lmx_mlx_backend.backend import MlxBackend

GIB = 1 << 30


@pytest.fixture
def driver(monkeypatch):
    """Installs a driver with GPUs of some sizes, beside a build of MLX that uses it; a size that is
    an error is raised.
    """
    opened = []

    def memory(size):
        if isinstance(size, Exception):
            raise size
        return SimpleNamespace(total=size)

    def install(*sizes):
        monkeypatch.setattr(device, "is_cpu", lambda wanted: wanted == "cpu")
        monkeypatch.setattr(pynvml, "nvmlInit", lambda: opened.append(True))
        monkeypatch.setattr(pynvml, "nvmlShutdown", opened.pop)
        monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: len(sizes))
        monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", sizes.__getitem__)
        monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", memory)

    yield install
    assert not opened, "the driver is let go"


def test_the_smallest_gpu_counts(driver):
    driver(80 * GIB, 24 * GIB)
    assert MlxBackend().device_bytes({}) == 24 * GIB


def test_a_model_on_the_cpu_takes_the_machine_s_memory(driver):
    driver(80 * GIB)
    assert MlxBackend().device_bytes({"device": "cpu"}) is None


@pytest.mark.parametrize(
    "sizes",
    [
        (),
        (pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED),),
        (24 * GIB, pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)),
    ],
)
def test_a_driver_that_does_not_tell_is_no_harm(driver, sizes):
    driver(*sizes)
    assert MlxBackend().device_bytes({}) is None


def test_without_a_driver_there_is_no_gpu(driver, monkeypatch):
    driver(24 * GIB)

    def missing():
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    assert MlxBackend().device_bytes({}) is None


def test_this_machine_s_own_driver_is_asked(monkeypatch):
    monkeypatch.setattr(device, "is_cpu", lambda wanted: False)
    size = MlxBackend().device_bytes({})
    assert size is None or size > GIB
