"""Limits of what this process may use, on systems that can set them."""

from __future__ import annotations

import resource


def limit_memory(limit_bytes: int) -> bool:
    """Limit the address space of this process; return whether the system does that.

    macOS refuses every limit below what the process has mapped already, which is hundreds of GiB:
    there somebody else must watch what the process uses.
    """
    try:
        resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
    except (OSError, ValueError):
        return False
    return True


def limit_cpu(more_s: float) -> bool:
    """Limit the CPU time of this process to so many seconds more, rounded up; return whether the
    system does that. A process that exceeds it is ended by SIGXCPU.
    """
    usage = resource.getrusage(resource.RUSAGE_SELF)
    soft_s = int(usage.ru_utime + usage.ru_stime + more_s) + 1
    try:
        resource.setrlimit(
            resource.RLIMIT_CPU, (soft_s, resource.getrlimit(resource.RLIMIT_CPU)[1])
        )
    except (OSError, ValueError):
        return False
    return True
