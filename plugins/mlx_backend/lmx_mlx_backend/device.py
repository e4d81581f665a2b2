"""Which device MLX will compute on, as far as packages and drivers tell: no engine is imported."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version

CUDA_BUILDS = ("mlx-cuda-12", "mlx-cuda-13", "mlx-cuda")
"""Packages that bring MLX for CUDA; on Linux it computes on the CPU without one of them."""


def is_cpu(wanted: str) -> bool:
    """Return whether a worker will compute on the CPU.

    :param wanted: the setting ``mlx.device``.
    """
    if wanted == "cpu":
        return True
    return sys.platform == "linux" and not any(map(_is_installed, CUDA_BUILDS))


def device_bytes(wanted: str) -> int | None:
    """Return the memory of the smallest GPU that has its own; None where there is none, or where
    its driver does not tell.

    :param wanted: the setting ``mlx.device``.
    """
    if is_cpu(wanted):
        return None
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
