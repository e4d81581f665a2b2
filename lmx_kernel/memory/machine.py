"""The memory of this machine and of its processes, on each system and in containers."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from lmx_kernel.memory import darwin
from lmx_kernel.processes.cgroup import memory_limits

PROC = Path("/proc")


def machine_bytes() -> int:
    """Return the memory of the machine, or of the container that this process runs in."""
    total, _ = _memory()
    return min([total, *(limit.limit_bytes for limit in memory_limits())])


def free_bytes() -> int:
    """Return what could be used now without swapping, within the container's limits if any.

    On macOS psutil leaves out files in memory that were used lately, such as the weights of a model
    that was unloaded just now.
    """
    total, available = _memory()
    free = min(total, max(available, darwin.available_bytes() or 0))
    return min([free, *(limit.free_bytes for limit in memory_limits())])


def process_bytes(pid: int) -> int:
    """Return what a process uses, in memory and in swap; 0 if it has ended.

    :raises OSError: no file is left to measure with.
    """
    import psutil  # noqa: PLC0415 - few commands measure anything

    try:
        resident = int(psutil.Process(pid).memory_info().rss)
    except (psutil.Error, OSError) as error:
        if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):
            raise
        resident = 0
    return max(resident + _swapped_bytes(pid), darwin.footprint_bytes(pid) or 0)


def _memory() -> tuple[int, int]:
    """Return the machine's memory and what is available of it."""
    import psutil  # noqa: PLC0415 - few commands measure anything

    try:
        memory = psutil.virtual_memory()
    except (psutil.Error, OSError):  # no /proc: the C library knows the pages that are free
        return _pages_bytes("SC_PHYS_PAGES"), _pages_bytes("SC_AVPHYS_PAGES")
    return int(memory.total), int(memory.available)


def _pages_bytes(name: str) -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf(name)
    except (ValueError, OSError):  # the C library does not know this number
        return 0


def _swapped_bytes(pid: int) -> int:
    """Return what a process has in swap, on Linux; psutil takes much longer for this."""
    try:
        status = (PROC / str(pid) / "status").read_text()
    except OSError:
        return 0
    kib = next((line.split()[1] for line in status.splitlines() if line.startswith("VmSwap")), "0")
    return int(kib) * 1024
