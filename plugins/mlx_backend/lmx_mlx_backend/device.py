"""Which device MLX will compute on, and its memory. No engine is imported in this process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import structlog

from lmx_kernel.memory.darwin import gpu_bytes
from lmx_kernel.memory.machine import machine_bytes
from lmx_kernel.processes.environment import child_environment
from lmx_kernel.types import DeviceMemory
from lmx_mlx_backend.blas import blas_env

CUDA_BUILDS = ("mlx-cuda-12", "mlx-cuda-13", "mlx-cuda")
"""Packages that bring MLX for CUDA; on Linux it computes on the CPU without one of them."""

LOOK_S = 20

LOOK = """
import json, sys
import mlx.core as mx
info, maps = {}, ""
if hasattr(mx, "device_info"):
    info = mx.device_info()
elif mx.metal.is_available():
    info = mx.metal.device_info()
if sys.platform == "linux":
    try:
        maps = open("/proc/self/maps").read()
    except OSError:
        pass
print(json.dumps({
    "version": mx.__version__,
    "device": str(mx.default_device()),
    "name": str(info.get("device_name", "")),
    "memory_bytes": int(info.get("memory_size", 0)),
    "working_set_bytes": int(info.get("max_recommended_working_set_size", 0)),
    "has_openblas": "openblas" in maps,
}))
"""

log = structlog.get_logger(__name__)


def is_cpu(wanted: str) -> bool:
    """Return whether a worker will compute on the CPU.

    :param wanted: the setting ``mlx.device``.
    """
    if wanted == "cpu":
        return True
    return sys.platform == "linux" and not any(map(_is_installed, CUDA_BUILDS))


def device_memory(wanted: str) -> DeviceMemory | None:
    """Return the memory of the GPU; None where there is none, or where its driver does not tell.

    :param wanted: the setting ``mlx.device``.
    """
    if is_cpu(wanted):
        return None
    if sys.platform == "darwin":
        return _part_of_the_machine()
    size = _smallest_gpu_bytes()
    return None if size is None else DeviceMemory(size)


def look() -> Mapping[str, Any]:
    """Ask MLX itself, in a child process as a worker is: this one imports no engine.

    :raises OSError: no process can be started.
    :raises subprocess.SubprocessError: it takes too long.
    :raises RuntimeError: MLX cannot be imported; with the reason.
    """
    done = subprocess.run(  # noqa: S603 - our own interpreter and text
        [sys.executable, "-P", "-c", LOOK],
        env=child_environment(blas_env(0)),
        capture_output=True,
        text=True,
        timeout=LOOK_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"cannot be imported: {done.stderr.strip()[-200:]}")
    seen: Mapping[str, Any] = json.loads(done.stdout)
    return seen


def _part_of_the_machine() -> DeviceMemory:
    """Return what Metal lets a process use; beyond that it aborts the process."""
    size = 0
    try:
        size = look()["working_set_bytes"]
    except (OSError, ValueError, RuntimeError, subprocess.SubprocessError) as error:
        log.warning("gpu_memory_unknown", reason=str(error))
    return DeviceMemory(size or gpu_bytes(machine_bytes()), is_shared=True)


def _smallest_gpu_bytes() -> int | None:
    """Return the memory of the smallest GPU that has its own."""
    import pynvml  # noqa: PLC0415 - most machines have no such driver

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver, or none that works
        return None
    try:
        gpus = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        return min((pynvml.nvmlDeviceGetMemoryInfo(gpu).total for gpu in gpus), default=None)
    except pynvml.NVMLError:  # such as a GPU that shares the machine's memory
        return None
    finally:
        pynvml.nvmlShutdown()


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True
