"""What this distribution adds to LMX."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from lmx_kernel.hookspecs import hookimpl

if TYPE_CHECKING:
    from lmx_kernel.interfaces import Kernel


@hookimpl
@asynccontextmanager
async def lmx_lifespan(kernel: Kernel) -> AsyncIterator[None]:
    """Follow the schedule while the daemon serves."""
    from lmx_schedule.schedule import follow  # noqa: PLC0415 - commands follow no schedule

    task = asyncio.create_task(follow(kernel))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
