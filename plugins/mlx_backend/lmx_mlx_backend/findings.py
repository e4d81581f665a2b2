"""What `lmx doctor` says of MLX: the device it found, its limits, and what is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

from lmx_kernel.interfaces import Finding
from lmx_kernel.memory.sizes import format_bytes
from lmx_kernel.processes.environment import child_environment
from lmx_mlx_backend.blas import blas_env, find_blas

TIMEOUT_S = 20

LOOK = """
import json, sys
import mlx.core as mx
info = mx.device_info() if hasattr(mx, "device_info") else {}
print(json.dumps({
    "version": mx.__version__,
    "device": str(mx.default_device()),
    "name": str(info.get("device_name", "")),
    "memory_bytes": int(info.get("memory_size", 0)),
    "working_set_bytes": int(info.get("max_recommended_working_set_size", 0)),
    "has_openblas": sys.platform == "linux" and "openblas" in open("/proc/self/maps").read(),
}))
"""


def examine() -> Iterator[Finding]:
    """Ask MLX itself, in a child process as a worker is: this one imports no engine."""
    done = subprocess.run(  # noqa: S603 - our own interpreter and text
        [sys.executable, "-c", LOOK],
        env=child_environment(blas_env(0)),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        yield Finding(False, "mlx", f"cannot be imported: {done.stderr.strip()[-200:]}")
        return
    seen = json.loads(done.stdout)
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
