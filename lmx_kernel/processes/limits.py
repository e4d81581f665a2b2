"""What a child process may use, where the system lets it be limited."""

from __future__ import annotations

import resource


def limit_memory(size_bytes: int) -> bool:
    """Limit the address space of this process; return whether the system does that (macOS refuses).

    :param size_bytes: beyond it, allocations fail.
    """
    try:
        resource.setrlimit(resource.RLIMIT_AS, (size_bytes, size_bytes))
    except (OSError, ValueError):
        return False
    return True
