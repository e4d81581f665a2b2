"""The load of the model that an answer waits for, told while the answer waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from attrs import define, field

from lmx_kernel.events import KernelEvent, LoadProgressed, LoadStarted, ModelLoaded
from lmx_kernel.interfaces import Answer
from lmx_kernel.types import Event, Usage

LoadEvent = LoadStarted | LoadProgressed | ModelLoaded


@define
class LoadWatch:
    """Notes what the kernel publishes of loads.

    It begins before the request is placed, since its model may be known only then.

    :ivar model: whose loads count; "" while that is not known.
    :ivar load_s: how long its load took; None if it was not loaded meanwhile.
    """

    model: str = ""
    load_s: float | None = None
    is_over: bool = False
    on_news: Callable[[], None] | None = None
    _noted: list[LoadEvent] = field(factory=list)

    def note(self, event: KernelEvent) -> None:
        """Take an event of the kernel."""
        if self.is_over or not isinstance(event, LoadEvent) or self.model not in ("", event.model):
            return
        self._noted.append(event)
        if self.on_news is not None:
            self.on_news()

    def watch(self, model: str) -> None:
        """Note the loads of one model from now on, and drop those of others."""
        self.model = model
        self._noted = [event for event in self._noted if event.model == model]

    @property
    def has_news(self) -> bool:
        """Whether there are events that were not taken."""
        return bool(self._noted)

    def take(self) -> list[LoadEvent]:
        """Return the events since the last call."""
        events, self._noted = self._noted, []
        for event in events:
            if isinstance(event, ModelLoaded):
                self.load_s = event.load_s
        return events


class WatchingAnswer(Answer):
    """Passes on the events of an answer. Before the first one, news of a load end the wait for it.

    :param watch: has the news.
    """

    def __init__(self, answer: Answer, watch: LoadWatch) -> None:
        self.id, self.model = answer.id, answer.model
        self._answer = answer
        self._watch = watch

    async def next(self, timeout_s: float | None = None) -> Event | None:
        """Return the next event; None if none came within ``timeout_s``, or if there are news.

        :raises LmxError: the answer failed.
        :raises StopAsyncIteration: it is complete.
        """
        if self._watch.is_over:
            return await self._answer.next(timeout_s)
        if self._watch.has_news:
            return None
        event = await self._first(timeout_s)
        self._watch.is_over = event is not None
        return event

    def usage(self) -> Usage:
        """Return its tokens and times so far."""
        return self._answer.usage()

    def close(self) -> None:
        """Cancel what still runs."""
        self._answer.close()
        self.outcome = self._answer.outcome

    async def _first(self, timeout_s: float | None) -> Event | None:
        try:
            async with asyncio.timeout(timeout_s) as wait:
                self._watch.on_news = lambda: _end(wait)
                return await self._answer.next()
        except TimeoutError:
            return None
        finally:
            self._watch.on_news = None


def _end(wait: asyncio.Timeout) -> None:
    if not wait.expired():
        wait.reschedule(0)
