"""The implementation of :class:`lmx_kernel.interfaces.StoredPrefixes`."""

from __future__ import annotations

import asyncio
from pathlib import Path

from attrs import frozen

from lmx_kernel.prefixes.folder import clear, usage
from lmx_kernel.types import PrefixUsage


@frozen
class PrefixFolder:
    """The folder of all models, as the daemon sees it.

    :param root: need not exist.
    """

    root: Path

    async def usage(self) -> list[PrefixUsage]:
        return await asyncio.to_thread(usage, self.root)

    async def clear(self, model: str | None = None) -> int:
        return await asyncio.to_thread(clear, self.root, model)
