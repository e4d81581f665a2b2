"""What a process may use, and what it has used, on every system.

Systems differ: macOS refuses any limit of the address space below some hundreds of GiB, and has no
other that it enforces. So each limit says whether it holds, and a parent can watch its child.
"""

from __future__ import annotations

import resource
import signal

from attrs import frozen


@frozen
class Usage:
    """What a process uses.

    :param memory_bytes: resident memory.
    :param cpu_s: processor time since its start, in seconds.
    """

    memory_bytes: int
    cpu_s: float


def limit_memory(size_bytes: int) -> bool:
    """Limit the address space of this process; return False where the system cannot.

    Without the limit, the parent has to watch the process by :func:`usage_of`.
    """
    try:
        resource.setrlimit(resource.RLIMIT_AS, (size_bytes, size_bytes))
    except (ValueError, OSError):
        return False
    return True


def limit_cpu(seconds: float) -> bool:
    """Have this process killed by SIGPROF once it has used this much more processor time, also
    while native code holds the interpreter; return False where the system cannot.

    A further call replaces the limit; 0 removes it.
    """
    try:
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, seconds)
    except (ValueError, OSError):
        return False
    return True


def usage_of(pid: int) -> Usage | None:
    """Return what a process uses; None where it is gone or the system does not say."""
    import psutil  # noqa: PLC0415 - few commands measure anything

    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            return Usage(process.memory_info().rss, times.user + times.system)
    except (psutil.Error, OSError):
        return None
