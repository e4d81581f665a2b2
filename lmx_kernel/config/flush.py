"""Files that are on the disk, not only on their way to it."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress

FULL = getattr(fcntl, "F_FULLFSYNC", None)
"""macOS only; see fsync(2) there: what its fsync() writes may stay in the drive's own memory."""


def flush(file: int) -> None:
    """Return once what was written to a file, or the names in a folder, survive a loss of power.

    :raises OSError: they cannot be written.
    """
    os.fsync(file)
    if FULL is not None:
        with suppress(OSError):  # a disk, such as one of the network, that cannot do more
            fcntl.fcntl(file, FULL)
