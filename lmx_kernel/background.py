"""What the daemon does by itself, beside answering: tasks that run as long as it does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from datetime import datetime

import structlog

from lmx_kernel.assembly import Assembly
from lmx_kernel.boot import Booted
from lmx_kernel.boot_guard import BootVerdict
from lmx_kernel.config import Settings
from lmx_kernel.errors import LmxError
from lmx_kernel.memory.budget import MemorySettings
from lmx_kernel.models.catalogue import Catalogue
from lmx_kernel.runtime.lifecycle import Lifecycle
from lmx_kernel.runtime.schedule import due
from lmx_kernel.runtime.settings import ModelSettings
from lmx_kernel.types import LoadWish

SCHEDULE_S = 10.0
log = structlog.get_logger(__name__)


def background(booted: Booted, assembly: Assembly) -> list[Coroutine[None, None, None]]:
    """Return everything that runs beside the requests."""
    settings, catalogue, lifecycle = booted.settings, assembly.catalogue, assembly.lifecycle
    tasks = [
        rescan(catalogue, settings),
        lifecycle.keep_house(),
        follow_schedule(catalogue, lifecycle, settings),
        autoload(assembly, settings, booted.verdict),
    ]
    if settings.get(MemorySettings).guard:
        tasks.append(assembly.guard.watch())
    return tasks


async def rescan(catalogue: Catalogue, settings: Settings) -> None:
    """Look at the model folders now and then."""
    while True:
        await asyncio.sleep(settings.get(ModelSettings).rescan_s)
        await catalogue.refresh()


async def autoload(assembly: Assembly, settings: Settings, verdict: BootVerdict) -> None:
    """Load what the config wants from the start, one after the other. What was loading when an
    earlier run ended badly is left out: it may be why.
    """
    for name in () if verdict.safe_mode else settings.get(ModelSettings).autoload:
        await _bear(_load(assembly.catalogue, assembly.lifecycle, name, verdict.suspects))


async def follow_schedule(catalogue: Catalogue, lifecycle: Lifecycle, settings: Settings) -> None:
    """Load and unload models at their times of day."""
    since = datetime.now().astimezone()
    while True:
        await asyncio.sleep(SCHEDULE_S)
        now = datetime.now().astimezone()
        for change in due(settings.get(ModelSettings).schedule, since, now):
            log.info("schedule", at=change.at, unload=change.unload, load=change.load)
            for name in change.unload:
                await _bear(_unload(catalogue, lifecycle, name))
            for name in change.load:
                await _bear(_load(catalogue, lifecycle, name))
        since = now


async def _unload(catalogue: Catalogue, lifecycle: Lifecycle, name: str) -> None:
    await lifecycle.unload(catalogue.find(name).id, "schedule")


async def _load(
    catalogue: Catalogue,
    lifecycle: Lifecycle,
    name: str,
    suspects: frozenset[str] = frozenset(),
) -> None:
    card = catalogue.find(name)
    if card.id in suspects:
        log.warning("autoload_skipped", model=card.id, reason="the last run ended while it loaded")
        return
    await lifecycle.load(card, LoadWish())


async def _bear(change: Awaitable[None]) -> None:
    """Go on with the next one if this fails."""
    try:
        await change
    except LmxError as error:
        log.warning("load_or_unload_failed", reason=error.message)
