"""What macOS says of memory, and psutil does not. Each question has the answer None on every other
system, and where macOS does not say.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from typing import Any

from lmx_kernel.memory.sizes import GIB, MIB

RUSAGE_INFO_V0 = 0  # sys/resource.h
HOST_VM_INFO64 = 4  # mach/host_info.h
SMALL_BYTES, SMALL_SHARE, LARGE_SHARE = 32 * GIB, 2 / 3, 3 / 4
"""The share of the memory that the system lets a GPU use by default: Apple does not document it;
public logs of machines from 16 to 64 GiB have these, and never less.
"""


class ResourceUsage(ctypes.Structure):
    """``struct rusage_info_v0`` of ``sys/resource.h``."""

    _fields_ = (
        ("uuid", ctypes.c_uint8 * 16),
        ("user_time", ctypes.c_uint64),
        ("system_time", ctypes.c_uint64),
        ("pkg_idle_wkups", ctypes.c_uint64),
        ("interrupt_wkups", ctypes.c_uint64),
        ("pageins", ctypes.c_uint64),
        ("wired_size", ctypes.c_uint64),
        ("resident_size", ctypes.c_uint64),
        ("phys_footprint", ctypes.c_uint64),
        ("proc_start_abstime", ctypes.c_uint64),
        ("proc_exit_abstime", ctypes.c_uint64),
    )


class PageCounts(ctypes.Structure):
    """``struct vm_statistics64`` of ``mach/vm_statistics.h``."""

    _fields_ = (
        *((name, ctypes.c_uint32) for name in ("free", "active", "inactive", "wire")),
        ("events", ctypes.c_uint64 * 9),
        *((name, ctypes.c_uint32) for name in ("purgeable", "speculative")),
        ("swap_events", ctypes.c_uint64 * 4),
        *((name, ctypes.c_uint32) for name in ("compressor", "throttled", "external", "internal")),
        ("uncompressed", ctypes.c_uint64),
    )


def footprint_bytes(pid: int) -> int | None:
    """Return what the system charges a process with: its pages, also those that are compressed,
    swapped or used by the GPU, but no files that are mapped.
    """
    usage = ResourceUsage()
    if _call("proc_pid_rusage", ctypes.c_int(pid), RUSAGE_INFO_V0, ctypes.byref(usage)) != 0:
        return None
    return int(usage.phys_footprint)


def available_bytes() -> int | None:
    """Return what could be used now without swapping: free memory, files in memory, and what
    programs have marked as of no value.
    """
    pages, host = PageCounts(), _call("mach_host_self")
    if host is None:
        return None
    count = ctypes.c_uint32(ctypes.sizeof(pages) // ctypes.sizeof(ctypes.c_int32))
    arguments = ctypes.c_uint32(host), HOST_VM_INFO64, ctypes.byref(pages), ctypes.byref(count)
    if _call("host_statistics64", *arguments) != 0:
        return None
    return int(pages.free + pages.external + pages.purgeable) * os.sysconf("SC_PAGE_SIZE")


def gpu_bytes(machine_bytes: int) -> int:
    """Return how much memory GPUs may use: what the machine's owner has set, else the share that
    the system has by default. Ask the GPU's own library first.
    """
    limit_mib = _system_number(b"iogpu.wired_limit_mb")
    if limit_mib:
        return min(machine_bytes, limit_mib * MIB)
    return int(machine_bytes * (SMALL_SHARE if machine_bytes <= SMALL_BYTES else LARGE_SHARE))


def _system_number(name: bytes) -> int | None:
    """Return a number that sysctl(3) knows."""
    value, size = ctypes.create_string_buffer(8), ctypes.c_size_t(8)
    arguments = ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0)
    if _call("sysctlbyname", name, *arguments) != 0:
        return None
    return int.from_bytes(value.raw[: size.value], sys.byteorder, signed=True)


def _call(name: str, *arguments: Any) -> int | None:
    """Call a function of the system's library; None where there is no such function."""
    try:
        result = getattr(_library(), name)(*arguments)
    except AttributeError:
        return None
    return int(result)


@cache
def _library() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform == "darwin" else None
