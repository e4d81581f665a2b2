"""How many threads an engine should compute with."""

from __future__ import annotations

import os

from lmx_kernel.processes.cgroup import cpu_limit


def usable_cores() -> int:
    """Return the physical cores that this process may use, at least 1.

    Where the system does not tell physical cores from logical ones, as many virtual machines do
    not, all count. A container's share of the processors is rounded up.
    """
    import psutil  # noqa: PLC0415 - few commands measure anything

    counts = [psutil.cpu_count(logical=False) or os.cpu_count(), _allowed(), _share()]
    return max(1, min((count for count in counts if count), default=1))


def _allowed() -> int | None:
    """Return how many processors the scheduler may use for this process; None outside Linux."""
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return None


def _share() -> int | None:
    limit = cpu_limit()
    return None if limit is None else -int(-limit // 1)
