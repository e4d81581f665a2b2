"""The space on the disk that a conversion may use."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from lmx_kernel.errors import DiskFullError
from lmx_kernel.memory.sizes import format_bytes

FULL = (errno.ENOSPC, errno.EDQUOT)
NOTHING_BYTES = 1 << 20
"""A disk with less than this is full: not all libraries say why they cannot write."""


@frozen
class Space:
    """The disk of ``folder``, which need not exist yet.

    :param reserve_bytes: what must stay free.
    """

    folder: Path
    reserve_bytes: int

    @property
    def free_bytes(self) -> int:
        """What is free now."""
        places = (self.folder, *self.folder.parents)
        return shutil.disk_usage(next(place for place in places if place.exists())).free

    def check(self, needed_bytes: float = 0) -> None:
        """Check that so much can be written.

        :raises DiskFullError: less would stay free than must.
        """
        free_bytes = self.free_bytes
        if needed_bytes + self.reserve_bytes > free_bytes:
            raise DiskFullError(
                f"the conversion needs {format_bytes(needed_bytes)} more and "
                f"{format_bytes(self.reserve_bytes)} are to stay free, but the disk has only "
                f"{format_bytes(free_bytes)}"
            )

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Let what fails in the block since the disk is full fail with that reason.

        :raises DiskFullError: the disk is full.
        """
        try:
            yield
        except DiskFullError:
            raise
        except Exception as error:
            is_told = isinstance(error, OSError) and error.errno in FULL
            if is_told or self.free_bytes < NOTHING_BYTES:
                raise DiskFullError("the disk ran full") from error
            raise
