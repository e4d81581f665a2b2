"""Events between one writer and one reader."""

from __future__ import annotations

import asyncio
from collections import deque

from lmx_kernel.errors import LmxError
from lmx_kernel.types import Event, ReasoningDelta, TextDelta, ToolCallDelta

MAX_EVENTS = 1024
MAX_CHARS = 256 * 1024


class EventBuffer:
    """Holds events until they are read. It takes any number of them: it is the writer who stops
    when it is full.
    """

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._chars = 0
        self._changed: asyncio.Future[None] | None = None
        self._closed = False
        self._error: LmxError | None = None

    @property
    def is_full(self) -> bool:
        """Whether the reader is so far behind that the writer should pause."""
        return len(self._events) >= MAX_EVENTS or self._chars >= MAX_CHARS

    @property
    def is_drained(self) -> bool:
        """Whether the reader is so far that a writer that paused may go on."""
        return len(self._events) <= MAX_EVENTS // 2 and self._chars <= MAX_CHARS // 2

    def push(self, event: Event) -> None:
        """Append an event."""
        self._chars += _chars(event)
        self._events.append(event)
        _settle(self._changed)

    def close(self, error: LmxError | None) -> None:
        """End the events; the reader gets those that are left, then ``error`` or the end."""
        self._closed, self._error = True, error
        _settle(self._changed)

    async def next(self, timeout_s: float | None) -> Event | None:
        """Return the next event, or None if none came within ``timeout_s``.

        :raises LmxError: what the buffer was closed with.
        :raises StopAsyncIteration: it was closed without an error.
        """
        if not self._events and not self._closed:
            await self._change(timeout_s)
        if self._events:
            event = self._events.popleft()
            self._chars -= _chars(event)
            return event
        if self._error is not None:
            raise self._error
        if self._closed:
            raise StopAsyncIteration
        return None

    def take(self) -> list[Event]:
        """Return all events that are there. Where the writer pushes a step without a pause, they
        are whole steps.
        """
        events, self._chars = list(self._events), 0
        self._events.clear()
        return events

    async def _change(self, timeout_s: float | None) -> None:
        """Wait until something is there, for so long. Each token passes here, so there is no more
        than a timer; ``asyncio.timeout`` takes several times as long.
        """
        loop = asyncio.get_running_loop()
        changed = self._changed = loop.create_future()
        timer = None if timeout_s is None else loop.call_later(timeout_s, _settle, changed)
        try:
            await changed
        finally:
            if timer is not None:
                timer.cancel()


def _settle(changed: asyncio.Future[None] | None) -> None:
    if changed is not None and not changed.done():
        changed.set_result(None)


def _chars(event: Event) -> int:
    if isinstance(event, TextDelta | ReasoningDelta):
        return len(event.text)
    return len(event.arguments) if isinstance(event, ToolCallDelta) else 0
