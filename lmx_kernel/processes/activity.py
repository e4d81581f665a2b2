"""What a process has done, as the operating system counts it."""

from __future__ import annotations

import mmap

import psutil
from attrs import frozen


@frozen
class Activity:
    """Totals of one process since its start; all are 0 where the system does not tell.

    :ivar cpu_s: CPU time of all its threads.
    :ivar read_bytes: what it read from files, memory-mapped ones included.
    :ivar resident_bytes: its memory that is in RAM now.
    """

    cpu_s: float = 0.0
    read_bytes: int = 0
    resident_bytes: int = 0

    @classmethod
    def of(cls, pid: int) -> Activity:
        """Return the totals of a process, of this user, so far."""
        try:
            process = psutil.Process(pid)
            with process.oneshot():
                times, memory = process.cpu_times(), process.memory_info()
                # macOS counts no bytes, but the pages that had to be read
                paged_bytes = getattr(memory, "pageins", 0) * mmap.PAGESIZE
                read_bytes = paged_bytes + _read_bytes(process)
        except psutil.Error:
            return cls()
        return cls(times.user + times.system, read_bytes, memory.rss)


def _read_bytes(process: psutil.Process) -> int:
    if not hasattr(process, "io_counters"):  # not on macOS
        return 0
    try:
        counters = process.io_counters()
    except (psutil.AccessDenied, NotImplementedError, OSError):  # containers may hide it
        return 0
    # from disks, and by read() also from network file systems and what is cached
    return int(counters.read_bytes) + int(getattr(counters, "read_chars", 0))
