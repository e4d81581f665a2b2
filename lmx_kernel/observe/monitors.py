"""Samples the monitors of plugins regularly and publishes their figures as events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from lmx_kernel.events import KernelEvent, Sampled
from lmx_kernel.interfaces import Monitor

MAX_FAILURES = 3
log = structlog.get_logger(__name__)


async def watch(monitor: Monitor, publish: Callable[[KernelEvent], None]) -> None:
    """Sample until cancelled, or until the monitor failed three times in a row."""
    failures = 0
    while failures < MAX_FAILURES:
        try:
            values = await asyncio.to_thread(monitor.sample)
        # Monitors are code of plugins: they may fail in any way, and the daemon continues.
        except (Exception, SystemExit):
            failures += 1
            log.exception("monitor_failed", monitor=monitor.name)
        else:
            failures = 0
            publish(Sampled(monitor=monitor.name, values=dict(values)))
        await asyncio.sleep(monitor.interval_s)
    log.error("monitor_muted", monitor=monitor.name)
