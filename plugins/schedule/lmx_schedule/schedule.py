"""Which changes of the schedule are due, and making them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Iterator
from datetime import datetime, time, timedelta

import structlog

from lmx_kernel.config.days import DAYS
from lmx_kernel.errors import LmxError
from lmx_kernel.interfaces import Kernel
from lmx_kernel.runtime.settings import ModelSettings, ScheduledChange
from lmx_kernel.types import LoadOverrides

LOOK_S = 10.0
MAX_LATE = timedelta(minutes=10)
log = structlog.get_logger(__name__)


async def follow(kernel: Kernel) -> None:
    """Load and unload models at their times of day, until cancelled."""
    since = datetime.now().astimezone()
    while True:
        await asyncio.sleep(LOOK_S)
        now = datetime.now().astimezone()
        for change in due(kernel.settings(ModelSettings).schedule, since, now):
            log.info("schedule", at=change.at, unload=change.unload, load=change.load)
            for name in change.unload:
                await _log_failure(kernel.unload(name, "schedule"))
            for name in change.load:
                await _log_failure(kernel.load(name, LoadOverrides()))
        since = now


async def _log_failure(change: Awaitable[object]) -> None:
    """Await a change; log an LmxError instead of raising it, so that the next model is handled."""
    try:
        await change
    except LmxError as error:
        log.warning("load_or_unload_failed", reason=error.message)


def due(
    changes: Iterable[ScheduledChange], since: datetime, now: datetime
) -> Iterator[ScheduledChange]:
    """Yield the changes whose time came after ``since`` and not after ``now``, both local.

    A change that the machine slept through is made up for within ten minutes; after a jump of the
    clock nothing older is.
    """
    since = max(since, now - MAX_LATE)
    for change in changes:
        moment = datetime.combine(now.date(), time.fromisoformat(change.at), now.tzinfo)
        if moment > now:  # it may have been due before midnight
            moment -= timedelta(days=1)
        if since < moment and DAYS[moment.weekday()] in change.days:
            yield change
