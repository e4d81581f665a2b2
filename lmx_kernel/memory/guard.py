"""Watches the memory that workers really take, and acts before the machine runs out of it.

Estimates decide what is loaded. The guard is for what they cannot foresee: leaks, other programs,
and estimates that were wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import psutil
from attrs import frozen

from lmx_kernel.events import KernelEvent, MemoryPressed
from lmx_kernel.memory.budget import MemorySettings, free_bytes, machine_bytes

WATCH_S = 0.5


class Level(StrEnum):
    """How scarce memory is."""

    NORMAL = "ease"
    SOFT = "soft"
    HARD = "hard"


class Holder(Protocol):
    """A model whose worker takes memory: see :class:`lmx_kernel.runtime.instance.Instance`."""

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
    """The use of memory at one time, in bytes."""

    used_bytes: int
    reserved_bytes: int
    budget_bytes: int
    free_bytes: int
    machine_bytes: int


def level_of(sample: MemorySample, settings: MemorySettings) -> Level:
    """Return how scarce memory is: against the budget, and against what the machine has left.

    Below the hard limits, workers that take no more than was reserved for them are normal.
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
    """Return the holder whose worker takes most beyond its reservation; that one is ended."""
    return max(
        (holder for holder in holders if holder.pid),
        key=lambda holder: (holder.observed_bytes - holder.memory_bytes, holder.observed_bytes),
        default=None,
    )


class Guard:
    """Samples the use of memory twice a second. Soft: no request starts, and caches for later
    requests are freed. Hard: the worst worker is ended; its streams are resumed, as after a crash.

    :param holders: returns the models that may have a worker.
    :param settings: returns the limits.
    :param budget_bytes: returns what all workers together may take.
    :ivar level: of the last sample.
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

    async def watch(self) -> None:
        """Sample and act, for ever."""
        while True:
            await self.look()
            await asyncio.sleep(WATCH_S)

    async def look(self) -> None:
        """Take one sample, and act on it."""
        holders = [(holder, holder.pid) for holder in self._holders()]
        running = [(holder, pid) for holder, pid in holders if pid]
        taken, free = await asyncio.to_thread(
            lambda: ([taken_bytes(pid) for _, pid in running], free_bytes())
        )
        for (holder, pid), bytes_ in zip(running, taken, strict=True):
            if holder.pid == pid:
                holder.observe(bytes_)
        used_bytes = sum(holder.observed_bytes for holder, _ in running)
        self.act(
            MemorySample(
                used_bytes=used_bytes,
                reserved_bytes=sum(holder.memory_bytes for holder, _ in running),
                budget_bytes=self._budget_bytes(),
                free_bytes=free,
                machine_bytes=machine_bytes(),
            )
        )

    def act(self, sample: MemorySample) -> None:
        """Act on ``sample``, and publish an event when the level changes or a worker is ended."""
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


def taken_bytes(pid: int) -> int:
    """Return what a process takes in memory and in swap; 0 if it is gone."""
    try:
        return int(psutil.Process(pid).memory_info().rss) + _swapped_bytes(pid)
    except psutil.Error:
        return 0


def _swapped_bytes(pid: int) -> int:
    """Return what lies in swap, on Linux; psutil takes much longer to find it out."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    kib = next((line.split()[1] for line in status.splitlines() if line.startswith("VmSwap")), "0")
    return int(kib) * 1024
