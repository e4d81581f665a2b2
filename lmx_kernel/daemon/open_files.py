"""The limit of open files, which launchd sets to 256 and most Linux systems to 1024."""

from __future__ import annotations

import resource
from contextlib import suppress

OPEN_MAX = 10_240  # macOS refuses a soft limit above this, whatever the hard limit says


def raise_file_limit(wanted: int) -> int:
    """Raise this process' soft limit of open files as far as the hard limit allows.

    :param wanted: how many files may be needed; a higher limit stays as it is.
    :return: the soft limit from now on.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    for limit in (wanted, min(wanted, OPEN_MAX)):
        if soft == resource.RLIM_INFINITY or soft >= limit:
            break
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            return limit
    return soft
