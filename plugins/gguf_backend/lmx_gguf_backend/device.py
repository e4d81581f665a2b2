"""The memory of the GPU that llama.cpp computes on, without loading the library here."""

from __future__ import annotations

import json
import subprocess
import sys

import structlog

from lmx_gguf_backend.settings import GgufSettings
from lmx_kernel.memory.darwin import gpu_bytes
from lmx_kernel.memory.machine import machine_bytes
from lmx_kernel.processes.environment import child_environment
from lmx_kernel.types import DeviceMemory

LOOK_S = 20

LOOK = """
import ctypes, json
from llama_cpp._ggml import libggml as ggml
ggml.ggml_backend_dev_count.restype = ctypes.c_size_t
ggml.ggml_backend_dev_get.restype = ctypes.c_void_p
sizes, free, total = [], ctypes.c_size_t(), ctypes.c_size_t()
for index in range(ggml.ggml_backend_dev_count()):
    device = ctypes.c_void_p(ggml.ggml_backend_dev_get(ctypes.c_size_t(index)))
    if ggml.ggml_backend_dev_type(device):  # 0 is a CPU
        ggml.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
        sizes.append(total.value)
print(json.dumps(sizes))
"""

log = structlog.get_logger(__name__)


def device_memory(settings: GgufSettings) -> DeviceMemory | None:
    """Return what the GPU of a Mac may use of its memory; None on other systems, where layers that
    the GPU has no memory for can stay with the CPU.
    """
    if sys.platform != "darwin" or not settings.gpu_layers:
        return None
    try:
        sizes = gpu_sizes()
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        log.warning("gpu_memory_unknown", reason=str(error))
        sizes = []
    return DeviceMemory(min(sizes, default=0) or gpu_bytes(machine_bytes()), is_shared=True)


def gpu_sizes() -> list[int]:
    """Ask the library, in a child process, for the memory of each GPU in bytes; those that do not
    say are left out.

    :raises OSError: no process can be started.
    :raises subprocess.SubprocessError: the library cannot be loaded, or takes too long.
    :raises ValueError: the answer cannot be read.
    """
    command = [sys.executable, "-P", "-c", LOOK]
    done = subprocess.run(  # noqa: S603 - this interpreter, and text of our own
        command, env=child_environment(), capture_output=True, timeout=LOOK_S, check=True
    )
    return [size for size in json.loads(done.stdout.splitlines()[-1]) if size]
