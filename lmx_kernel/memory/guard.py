"""Measures what workers really use, and acts before the machine runs out of memory.

Estimates decide what is loaded; the guard is for what they cannot know: leaks, other programs, and
wrong estimates.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Protocol

import structlog
from attrs import frozen

from lmx_kernel.events import KernelEvent, MemoryPressed
from lmx_kernel.memory.budget import MemorySettings
from lmx_kernel.memory.machine import free_bytes, machine_bytes, process_bytes

WATCH_S = 0.5
log = structlog.get_logger(__name__)


class Level(StrEnum):
    """The memory pressure."""

    NORMAL = "ease"
    SOFT = "soft"
    HARD = "hard"


class Holder(Protocol):
    """Something with a worker: see :class:`lmx_kernel.runtime.instance.Instance`."""

    model: str
    memory_bytes: int

    @property
    def observed_bytes(self) -> int: ...
    @property
    def pid(self) -> int | None: ...
    def observe(self, taken_bytes: int) -> None: ...
    def hold(self, reason: str) -> None: ...
    def trim(self) -> None: ...
    def kill(self, reason: str) -> None: ...


@frozen(kw_only=True)
class MemorySample:
    """One measurement of workers and machine, in bytes."""

    used_bytes: int
    reserved_bytes: int
    budget_bytes: int
    free_bytes: int
    machine_bytes: int


def level_of(sample: MemorySample, settings: MemorySettings) -> Level:
    """Return the memory pressure, by the budget and by the free memory of the machine.

    Workers that use no more than their reservations cause no pressure, since those fit.
    """
    if (
        sample.used_bytes > sample.budget_bytes
        or sample.free_bytes < settings.hard_free_share * sample.machine_bytes
    ):
        return Level.HARD
    if (
        sample.used_bytes > max(settings.soft_share * sample.budget_bytes, sample.reserved_bytes)
        or sample.free_bytes < settings.soft_free_share * sample.machine_bytes
    ):
        return Level.SOFT
    return Level.NORMAL


def worst(holders: Iterable[Holder]) -> Holder | None:
    """Return whose worker to kill: the one furthest above its reservation."""
    return max(
        (holder for holder in holders if holder.pid),
        key=lambda holder: (holder.observed_bytes - holder.memory_bytes, holder.observed_bytes),
        default=None,
    )


class Guard:
    """Measures twice a second. Soft pressure: no new request starts, and caches are freed. Hard
    pressure: the worst worker is killed; its answers are resumed, as after a crash.

    :param holders: returns everything that may have a worker.
    :param settings: returns the limits.
    :param budget_bytes: returns the budget of all workers together.
    :ivar level: the pressure at the last measurement.
    """

    def __init__(
        self,
        holders: Callable[[], Iterable[Holder]],
        settings: Callable[[], MemorySettings],
        budget_bytes: Callable[[], int],
        publish: Callable[[KernelEvent], None],
    ) -> None:
        self._holders = holders
        self._settings = settings
        self._budget_bytes = budget_bytes
        self._publish = publish
        self.level = Level.NORMAL
        self._is_blind = False  # the last measurement failed

    async def watch(self) -> None:
        """Measure and act regularly, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(WATCH_S)

    async def look(self) -> None:
        """Measure once, and act."""
        holders = [(holder, holder.pid) for holder in self._holders()]
        running = [(holder, pid) for holder, pid in holders if pid]
        try:
            taken, free, machine, budget = await asyncio.to_thread(
                lambda: (
                    [process_bytes(pid) for _, pid in running],
                    free_bytes(),
                    machine_bytes(),
                    self._budget_bytes(),
                )
            )
        # No file or no thread is left. Both are scarce when memory is, so the guard must go on.
        except (OSError, RuntimeError) as error:
            if not self._is_blind:
                log.warning("memory_not_measured", reason=str(error))
            self._is_blind = True
            return
        self._is_blind = False
        for (holder, pid), bytes_ in zip(running, taken, strict=True):
            if holder.pid == pid:
                holder.observe(bytes_)
        used_bytes = sum(holder.observed_bytes for holder, _ in running)
        self.act(
            MemorySample(
                used_bytes=used_bytes,
                reserved_bytes=sum(holder.memory_bytes for holder, _ in running),
                budget_bytes=budget,
                free_bytes=free,
                machine_bytes=machine,
            )
        )

    def act(self, sample: MemorySample) -> None:
        """Enforce the limits, and publish an event if the level changed or a worker was killed."""
        holders = list(self._holders())
        level, before = level_of(sample, self._settings()), self.level
        self.level = level
        victim = worst(holders) if level is Level.HARD else None
        if victim is not None:
            victim.kill(f"memory ran out: it took {victim.observed_bytes >> 20} MiB")
        for holder in holders:
            holder.hold("" if level is Level.NORMAL else "memory is scarce")
            if level not in (before, Level.NORMAL):
                holder.trim()
        if level is not before or victim is not None:
            self._publish(
                MemoryPressed(
                    level=level.value,
                    used_bytes=sample.used_bytes,
                    budget_bytes=sample.budget_bytes,
                    worker=victim.model if victim else "",
                )
            )
