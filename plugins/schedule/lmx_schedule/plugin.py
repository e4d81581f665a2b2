"""What this distribution adds to LMX."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from lmx_kernel.hookspecs import hookimpl
from lmx_kernel.interfaces import Kernel
from lmx_schedule.schedule import follow


@hookimpl
@asynccontextmanager
async def lmx_lifespan(kernel: Kernel) -> AsyncIterator[None]:
    """Follow the schedule while the daemon serves."""
    task = asyncio.create_task(follow(kernel))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
