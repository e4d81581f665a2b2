"""Who gets room next: models that fit go at once, the others wait in line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from lmx_kernel import errors
from lmx_kernel.runtime.instance import Instance
from lmx_kernel.runtime.room import Claim, Refusal, Room

PlanRoom = Callable[[Instance, Claim], Room | Refusal]


class RoomLine:
    """Makes room for one model after the other: next is the one whose requests are next by priority
    and by what their callers were served (:func:`~.admission.claim_of`), of several the one that
    came first. The first in line stays the first.

    Only the first in line unloads others. What that frees is set aside for it, so that it gets on
    however many smaller models come meanwhile; all else that is free is for whoever it is enough
    for.

    :param plan: says how a model gets room now, beside what is set aside for another.
    :param turn_s: see :meth:`Instance.yield_memory`.
    """

    def __init__(self, plan: PlanRoom, turn_s: Callable[[], float]) -> None:
        self._plan = plan
        self._turn_s = turn_s
        self._waiting: list[Instance] = []
        self._freed_bytes = 0  # for the first in line
        self._leaving: tuple[Instance, int] | None = None
        self._changed = asyncio.Event()

    async def wait_for_room(self, instance: Instance, needed_bytes: int) -> None:
        """Return when there is room for a model; reserve it before anything else is awaited.

        :raises InsufficientMemoryError: there will be none, with the reason.
        """
        self._waiting.append(instance)
        try:
            room = self._require_room(instance, needed_bytes)
            while not self._fits(instance, needed_bytes, room):
                if self._waiting[0] is instance:
                    await self._unload(room.evictions[0])
                else:
                    await self._changed.wait()
                room = self._require_room(instance, needed_bytes)
        finally:
            was_first = self._waiting[0] is instance
            self._waiting.remove(instance)
            if was_first:
                self._freed_bytes = 0
                self._choose_first()
            self.look_again()

    def look_again(self) -> None:
        """Let those in line see whether there is room for them now."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _choose_first(self) -> None:
        if self._waiting:
            first = min(self._waiting, key=lambda instance: instance.requests.claim)
            self._waiting.remove(first)
            self._waiting.insert(0, first)

    def _require_room(self, instance: Instance, needed_bytes: int) -> Room:
        room = self._plan(instance, Claim(needed_bytes))
        if isinstance(room, Refusal):
            raise errors.InsufficientMemoryError(room.reason)
        return room

    def _fits(self, instance: Instance, needed_bytes: int, room: Room) -> bool:
        """Whether a model fits now, beside what is set aside for the first in line."""
        if room.evictions or self._waiting[0] is instance:
            return not room.evictions
        freed_bytes = self._freed_bytes
        if self._leaving is not None and not self._leaving[0].memory_bytes:
            freed_bytes += self._leaving[1]  # it is gone, and the first in line has yet to see it
        beside = self._plan(instance, Claim(needed_bytes, freed_bytes, aside_models=1))
        return isinstance(beside, Room) and not beside.evictions

    async def _unload(self, other: Instance) -> None:
        self._leaving = other, other.memory_bytes
        try:
            await other.yield_memory(self._turn_s())
            self._freed_bytes += self._leaving[1]
        finally:
            self._leaving = None
