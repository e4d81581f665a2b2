"""What is known of the device without importing an engine."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pynvml
import pytest
from lmx_mlx_backend import device, findings
from lmx_mlx_backend.backend import MlxBackend

from lmx_kernel.memory.machine import machine_bytes
from lmx_kernel.types import DeviceMemory

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
        monkeypatch.setattr(sys, "platform", "linux")
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
    assert MlxBackend().device_memory({}) == DeviceMemory(24 * GIB)


def test_a_model_on_the_cpu_takes_the_machine_s_memory(driver):
    driver(80 * GIB)
    assert MlxBackend().device_memory({"device": "cpu"}) is None


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
    assert MlxBackend().device_memory({}) is None


def test_without_a_driver_there_is_no_gpu(driver, monkeypatch):
    driver(24 * GIB)

    def missing():
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    assert MlxBackend().device_memory({}) is None


def test_this_machine_s_own_driver_is_asked(monkeypatch):
    monkeypatch.setattr(device, "is_cpu", lambda wanted: False)
    found = MlxBackend().device_memory({})
    assert found is None or found.size_bytes > GIB


# --- a Mac ---------------------------------------------------------------------------------------


@pytest.fixture
def mac(monkeypatch):
    """A Mac of 16 GiB."""
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(device, "machine_bytes", lambda: 16 * GIB)


@pytest.mark.usefixtures("mac")
def test_on_a_mac_models_get_what_metal_recommends(monkeypatch):
    monkeypatch.setattr(device, "look", lambda: {"working_set_bytes": 12 * GIB})
    assert MlxBackend().device_memory({}) == DeviceMemory(12 * GIB, is_shared=True)
    assert MlxBackend().device_memory({"device": "cpu"}) is None


UNKNOWN = [
    RuntimeError("cannot be imported"),
    OSError(11, "Resource temporarily unavailable"),
    subprocess.TimeoutExpired("python", 20),
    ValueError("no JSON"),
]


@pytest.mark.usefixtures("mac")
@pytest.mark.parametrize("error", [None, *UNKNOWN], ids=repr)
def test_on_a_mac_whose_metal_does_not_say_models_get_the_usual_share(monkeypatch, error):
    def look():
        if error:
            raise error
        return {"working_set_bytes": 0}

    monkeypatch.setattr(device, "look", look)
    assert MlxBackend().device_memory({}) == DeviceMemory(16 * GIB * 2 // 3, is_shared=True)


@pytest.mark.parametrize("error", UNKNOWN, ids=repr)
def test_doctor_says_that_mlx_does_not_answer(monkeypatch, error):
    def look():
        raise error

    monkeypatch.setattr(findings, "look", look)
    [found] = findings.examine()
    assert not found.is_ok
    assert found.subject == "mlx"


@pytest.mark.macos("Metal")
def test_metal_itself_recommends_less_than_the_machine_has():
    found = MlxBackend().device_memory({})
    assert found.is_shared
    assert found == DeviceMemory(device.look()["working_set_bytes"], is_shared=True)
    assert GIB < found.size_bytes < machine_bytes()


def test_mlx_itself_is_asked():
    seen = device.look()
    assert seen["version"]
    assert seen["working_set_bytes"] >= 0
