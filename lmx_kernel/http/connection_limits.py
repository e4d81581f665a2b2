"""How many connections there may be, so that files are left for everything else."""

from __future__ import annotations

import resource

from attrs import frozen

FILES_FOR_OTHERS = 128  # models, workers, databases, logs
MAX_REFUSED = 256
LEAST = 16


@frozen
class ConnectionLimits:
    """What one budget of open files allows.

    :ivar served: so many connections are served.
    :ivar refused: so many beyond these are answered with an error; more are closed without one.
    """

    served: int
    refused: int

    @classmethod
    def within(cls, files: int, max_connections: int) -> ConnectionLimits:
        """Divide a process's open files: what others need, then a fifth of the rest to refuse.

        :param max_connections: how many are served if there are files enough.
        """
        left = max(LEAST, files - FILES_FOR_OTHERS)
        refused = min(MAX_REFUSED, left // 5)
        return cls(min(max_connections, left - refused), refused)

    @classmethod
    def of_process(cls, max_connections: int) -> ConnectionLimits:
        """Return the limits by the number of files that this process may open."""
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if files == resource.RLIM_INFINITY:
            files = files_wanted(max_connections)
        return cls.within(files, max_connections)


def files_wanted(max_connections: int) -> int:
    """Return how many open files a server takes at most."""
    return max_connections + MAX_REFUSED + FILES_FOR_OTHERS
