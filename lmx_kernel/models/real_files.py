"""Which files a model really has: by identity on disk, whatever path or link leads to them."""

from __future__ import annotations

import os
from contextlib import suppress

from lmx_kernel.types import ModelCard

FileId = tuple[int, int]
"""Device and inode."""


def real_files(card: ModelCard) -> frozenset[FileId]:
    """Return the identities of a model's files, links followed; missing ones have none.

    Two models share files if these sets overlap, also where one folder is found in two sources, or
    names differ in case only on a disk that does not tell them apart.
    """
    found = set()
    for path in card.files or (card.path,):
        with suppress(OSError):
            status = os.stat(path)  # noqa: PTH116 - a thousand times for each deletion
            found.add((status.st_dev, status.st_ino))
    return frozenset(found)
