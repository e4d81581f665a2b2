"""Whether a file has changed since it was read."""

from __future__ import annotations

from pathlib import Path


def file_state(path: Path) -> object:
    """Return what changes whenever the file does; it may be missing."""
    try:
        stat = path.stat()
    except OSError as error:
        return error.errno
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
