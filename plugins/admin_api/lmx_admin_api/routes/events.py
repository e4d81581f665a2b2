"""``/admin/events``: the kernel's events as a stream."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Collection
from contextlib import ExitStack
from typing import get_args

import msgspec
from attrs import define, field, frozen
from falcon.asgi import Request, Response

from lmx_admin_api.parsing import read_query
from lmx_admin_api.schema import EventFrame, EventsQuery
from lmx_admin_api.settings import AdminSettings
from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.events import KernelEvent, Stopping, event_name
from lmx_kernel.http.sse import COMMENT, close_with_request, encode_event, send_stream
from lmx_kernel.interfaces import Kernel

TYPES = sorted(map(event_name, get_args(KernelEvent)))


@frozen
class Events:
    """A stream of events for each client."""

    kernel: Kernel
    settings: AdminSettings

    async def on_get(self, req: Request, resp: Response) -> None:
        """Send each event until the client leaves, or the daemon stops."""
        backlog = Backlog(_types(read_query(req, EventsQuery).types), self.settings.backlog)
        stack = ExitStack()
        close_with_request(stack.close)
        stack.enter_context(self.kernel.listen(backlog.put))
        send_stream(resp, self._frames(backlog))

    async def _frames(self, backlog: Backlog) -> AsyncIterator[bytes]:
        yield COMMENT
        number = 0
        while not (self.kernel.draining and backlog.is_empty):
            taken = await backlog.take(self.settings.heartbeat_s)
            for kind, at, data in taken:
                number += 1
                frame = EventFrame(id=number, type=kind, at=at, data=data)
                yield encode_event(msgspec.json.encode(frame), event=kind, id=number)
            if not taken:
                yield COMMENT


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
        """Whether no event waits."""
        return not self._items

    def put(self, event: KernelEvent) -> None:
        """Keep an event for the reader if it is of one of its types."""
        kind = event_name(type(event))
        if kind in self.types:
            if len(self._items) == self.limit:
                self._items.popleft()
                self._lost += 1
            self._items.append((kind, time.time(), msgspec.to_builtins(event)))
        if self._items or isinstance(event, Stopping):
            self._changed.set()

    async def take(self, limit_s: float) -> list[Item]:
        """Return the events that wait, after a ``dropped`` with the number of those that were lost;
        none if none came within ``limit_s``.
        """
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
