"""Which device MLX will compute on, as far as installed packages tell: no engine is imported."""

from __future__ import annotations

import shutil
import subprocess
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
    """Return the memory of the smallest GPU that has its own; None where there is none, or its
    driver's tool does not tell.

    :param wanted: the setting ``mlx.device``.
    """
    tool = shutil.which("nvidia-smi")
    if tool is None or is_cpu(wanted):
        return None
    asked = [tool, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]  # in MiB
    try:
        told = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
        return min(int(line) << 20 for line in told.stdout.split())
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True
