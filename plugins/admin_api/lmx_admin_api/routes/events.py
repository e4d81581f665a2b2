"""``/admin/events``: what happens, as it happens."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Collection
from typing import get_args

import msgspec
from attrs import define, field, frozen
from falcon.asgi import Request, Response

from lmx_admin_api.parsing import read_query
from lmx_admin_api.schema import EventFrame, EventsQuery
from lmx_admin_api.settings import AdminSettings
from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.events import KernelEvent, Stopping, event_name
from lmx_kernel.interfaces import Kernel

HEARTBEAT = b": keep-alive\n\n"
TYPES = sorted(map(event_name, get_args(KernelEvent)))


@frozen
class Events:
    """A stream of events for each client."""

    kernel: Kernel
    settings: AdminSettings

    async def on_get(self, req: Request, resp: Response) -> None:
        """Tell what happens until the client leaves, or the daemon stops."""
        backlog = Backlog(_types(read_query(req, EventsQuery).types), self.settings.backlog)
        listening = self.kernel.listen(backlog.put)
        listening.__enter__()
        # The stream could not leave it: falcon never starts it when the headers cannot be sent.
        task = asyncio.current_task()
        assert task is not None
        task.add_done_callback(lambda _: listening.__exit__(None, None, None))
        resp.content_type = "text/event-stream"
        resp.set_headers({"cache-control": "no-cache", "x-accel-buffering": "no"})
        resp.stream = self._frames(backlog)

    async def _frames(self, backlog: Backlog) -> AsyncIterator[bytes]:
        yield HEARTBEAT
        number = 0
        while not (self.kernel.draining and backlog.is_empty):
            told = await backlog.take(self.settings.heartbeat_s)
            for kind, at, data in told:
                number += 1
                yield _frame(EventFrame(id=number, type=kind, at=at, data=data))
            if not told:
                yield HEARTBEAT


Item = tuple[str, float, dict[str, object]]


@define
class Backlog:
    """Events that wait for their reader; the oldest are lost when there are too many."""

    types: Collection[str]
    limit: int
    _items: deque[Item] = field(factory=deque)
    _lost: int = 0
    _changed: asyncio.Event = field(factory=asyncio.Event)

    @property
    def is_empty(self) -> bool:
        """Whether everything was taken."""
        return not self._items

    def put(self, event: KernelEvent) -> None:
        """Keep an event for the reader if it is of a type that he wants."""
        kind = event_name(type(event))
        if kind in self.types:
            if len(self._items) == self.limit:
                self._items.popleft()
                self._lost += 1
            self._items.append((kind, time.time(), msgspec.to_builtins(event)))
        if self._items or isinstance(event, Stopping):
            self._changed.set()

    async def take(self, limit_s: float) -> list[Item]:
        """Return what waits, after a note of what was lost; nothing if nothing came for so long."""
        try:
            async with asyncio.timeout(limit_s):
                await self._changed.wait()
        except TimeoutError:
            return []
        self._changed.clear()
        taken = list(self._items)
        if self._lost:
            taken.insert(0, ("dropped", time.time(), {"count": self._lost}))
        self._items.clear()
        self._lost = 0
        return taken


def _types(text: str) -> Collection[str]:
    wanted = {name.strip() for name in text.split(",") if name.strip()}
    if unknown := sorted(wanted.difference(TYPES)):
        raise InvalidRequestError(
            f"types: {unknown[0][:64]} is unknown; there are: {', '.join(TYPES)}", param="types"
        )
    return wanted or TYPES


def _frame(told: EventFrame) -> bytes:
    data = msgspec.json.encode(told)
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (told.id, told.type.encode(), data)
