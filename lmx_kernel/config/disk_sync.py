"""Makes what was written survive a power cut, on each platform in its own way."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path


def sync_file(file: int) -> None:
    """Return when an open file is on the disk.

    On macOS fsync(2) leaves it in the disk's own cache, and only ``F_FULLFSYNC`` empties that;
    some file systems there refuse it.

    :param file: a file descriptor.
    :raises OSError: it cannot be written.
    """
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:
        try:
            fcntl.fcntl(file, full)
        except OSError:
            os.fsync(file)
    else:
        os.fsync(file)


def sync_folder(folder: Path) -> None:
    """Return when the names in a folder are on the disk: a rename may be undone before. Some file
    systems cannot promise that; then nothing happens.
    """
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            sync_file(handle)
        finally:
            os.close(handle)
