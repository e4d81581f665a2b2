"""What `lmx doctor` says of MLX: the device it found, its limits, and what is missing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from lmx_kernel.interfaces import Finding
from lmx_kernel.memory.sizes import format_bytes
from lmx_mlx_backend.blas import find_blas
from lmx_mlx_backend.device import look


def examine() -> Iterator[Finding]:
    """Yield what MLX says of itself."""
    try:
        seen = look()
    except (OSError, ValueError, RuntimeError, subprocess.SubprocessError) as error:
        yield Finding(False, "mlx", str(error))
        return
    yield Finding(True, "mlx", f"{seen['version']} on {seen['device']} {seen['name']}".strip())
    if seen["working_set_bytes"]:
        limit, total = map(format_bytes, (seen["working_set_bytes"], seen["memory_bytes"]))
        yield Finding(True, "mlx memory", f"the GPU may use {limit} of {total}")
    if sys.platform == "linux" and "cpu" in seen["device"]:
        yield _openblas(is_loaded=seen["has_openblas"])


def _openblas(*, is_loaded: bool) -> Finding:
    if is_loaded:
        text = "in front of MLX's own"
    elif find_blas() is None:
        text = "missing: pip install scipy-openblas32, and a C compiler"
    else:
        text = "it is there, but the system does not load it in front of MLX's own"
    return Finding(is_loaded, "mlx OpenBLAS", text)
