"""Samples the monitors of plugins regularly and publishes their figures as events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from numbers import Real

import structlog

from lmx_kernel.events import KernelEvent, Sampled
from lmx_kernel.interfaces import Monitor
from lmx_kernel.plugins.calls import Watch, described, unwatched
from lmx_kernel.plugins.timeouts import in_thread

MAX_FAILURES = 3
log = structlog.get_logger(__name__)


async def watch(
    monitor: Monitor,
    publish: Callable[[KernelEvent], None],
    watched: Watch = unwatched,
    on_muted: Callable[[str, str], None] = lambda _name, _reason: None,
) -> None:
    """Sample until cancelled, or until the monitor failed three times in a row.

    :param on_muted: then called with its name and the reason.
    """
    failures, reason = 0, ""
    while failures < MAX_FAILURES:
        try:
            values = await in_thread(_sample, monitor, watched)
        # Monitors are code of plugins: they may fail in any way, and the daemon continues.
        except (Exception, SystemExit) as error:
            failures += 1
            reason = f"{monitor.name}.sample: {described(error)}"
            log.exception("monitor_failed", monitor=monitor.name)
        else:
            failures = 0
            publish(Sampled(monitor=monitor.name, values=values))
        await asyncio.sleep(monitor.interval_s)
    log.error("monitor_muted", monitor=monitor.name)
    on_muted(monitor.name, reason)
    publish(Sampled(monitor=monitor.name, values={}))  # its last figures are no longer true


def _sample(monitor: Monitor, watched: Watch) -> dict[str, float]:
    """Return the figures of a monitor.

    :raises TypeError: one of them is no number.
    """
    with watched("lmx_monitors", monitor.name, "sample"):
        figures: dict[str, float] = {}
        for name, value in dict(monitor.sample()).items():
            if not isinstance(name, str) or not isinstance(value, Real):
                raise TypeError(f"{name!r} is {value!r}, and not a number")
            figures[name] = float(value)
        return figures
