"""What is kept on disk of computed prompts and answers."""

from __future__ import annotations

from typing import Protocol

from lmx_kernel.types import PrefixUsage


class StoredPrefixes(Protocol):
    """The states of engines that are kept on disk, so that they outlive the worker."""

    async def usage(self) -> list[PrefixUsage]:
        """Return what is kept for each model."""
        ...

    async def clear(self, model: str | None = None) -> int:
        """Delete what is kept for a model, or for all; return how many bytes that were. Requests
        that run are not disturbed.

        :param model: its catalogue id; it may have been deleted.
        """
        ...
