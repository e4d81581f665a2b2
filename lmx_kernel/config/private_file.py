"""Small files that only their owner may read, written atomically."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from lmx_kernel.config.disk_sync import sync_file, sync_folder


def write_private(path: Path, data: bytes) -> None:
    """Replace ``path`` atomically, with mode 0600: a reader sees the old file or the new one, and
    the new one survives a power cut.

    :raises OSError: it cannot be written; nothing has changed.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            sync_file(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
