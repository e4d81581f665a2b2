"""What the daemon does by itself, beside answering: tasks that run as long as it does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from lmx_kernel.config import Settings
from lmx_kernel.daemon.connections import adopt_late
from lmx_kernel.errors import LmxError
from lmx_kernel.kernel.assembly import Assembly
from lmx_kernel.kernel.boot import Booted
from lmx_kernel.kernel.boot_verdict import BootVerdict
from lmx_kernel.memory.budget import MemorySettings
from lmx_kernel.models.catalogue import Catalogue
from lmx_kernel.runtime.lifecycle import Lifecycle
from lmx_kernel.runtime.settings import ModelSettings
from lmx_kernel.types import LoadOverrides

log = structlog.get_logger(__name__)


def background(booted: Booted, assembly: Assembly) -> dict[str, Callable[[], Awaitable[None]]]:
    """Return everything that runs beside the requests, by name."""
    settings = booted.settings
    work: dict[str, Callable[[], Awaitable[None]]] = {
        "rescan": partial(rescan, assembly.catalogue, settings),
        "maintenance": assembly.lifecycle.run_maintenance,
        "stored answers": assembly.kernel.stored_answers.run,
        "late plugins": partial(adopt_late, booted, assembly),
        "autoload": partial(autoload, assembly, settings, booted.verdict),
    }
    if settings.get(MemorySettings).guard:
        work["memory guard"] = assembly.guard.watch
    return work


async def rescan(catalogue: Catalogue, settings: Settings) -> None:
    """Look at the model folders now and then."""
    while True:
        await asyncio.sleep(settings.get(ModelSettings).rescan_s)
        await catalogue.refresh()


async def autoload(assembly: Assembly, settings: Settings, verdict: BootVerdict) -> None:
    """Load what the config wants from the start, one after the other. What was loading when an
    earlier run ended badly is left out: it may be why.
    """
    wanted = [*settings.get(ModelSettings).autoload, *assembly.kernel.model_settings.autoload()]
    for name in () if verdict.safe_mode else dict.fromkeys(wanted):
        await _log_failure(_load(assembly.catalogue, assembly.lifecycle, name, verdict.suspects))


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
    await lifecycle.load(card, LoadOverrides())


async def _log_failure(change: Awaitable[None]) -> None:
    """Go on with the next one if this fails."""
    try:
        await change
    except LmxError as error:
        log.warning("load_or_unload_failed", reason=error.message)
