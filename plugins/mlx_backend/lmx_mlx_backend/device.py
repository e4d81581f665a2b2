"""Which device MLX will compute on, as far as installed packages tell: no engine is imported."""

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


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True
