"""Keeps the contexts of plugins open while the daemon serves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager

import structlog
from attrs import define, field

OPEN_S = 0.5  # so long the daemon waits for a context to open; then it opens beside the rest
CLOSE_S = 10.0
log = structlog.get_logger(__name__)


@define
class _Open:
    """A context that is being opened, is open, or is being closed."""

    task: asyncio.Task[None]
    is_open: asyncio.Event
    may_close: asyncio.Event = field(factory=asyncio.Event)


class Lifespans:
    """Holds each context in a task of its own, which opens and closes it.

    :param on_failure: called with the plugin whose context failed to open, and its error.
    """

    def __init__(self, on_failure: Callable[[str, BaseException], None]) -> None:
        self._on_failure = on_failure
        self._open: dict[str, _Open] = {}

    async def open(self, contexts: Iterable[tuple[str, AbstractAsyncContextManager[None]]]) -> None:
        """Open the contexts of plugins, all at the same time, instead of those they had."""
        contexts = list(contexts)
        await self.close([plugin for plugin, _ in contexts])
        for plugin, context in contexts:
            is_open, may_close = asyncio.Event(), asyncio.Event()
            task = asyncio.create_task(
                self._hold(plugin, context, is_open, may_close), name=f"lifespan of {plugin}"
            )
            self._open[plugin] = _Open(task, is_open, may_close)
        waits = [asyncio.ensure_future(one.is_open.wait()) for one in self._open.values()]
        if waits:
            _, late = await asyncio.wait(waits, timeout=OPEN_S)
            for wait in late:
                wait.cancel()

    async def close(self, plugins: Iterable[str]) -> None:
        """Close the contexts of these plugins; those that take too long are cancelled."""
        closing = [self._open.pop(name) for name in list(plugins) if name in self._open]
        for one in closing:
            one.may_close.set()
            if not one.is_open.is_set():
                one.task.cancel()
        if closing:
            _, stuck = await asyncio.wait([one.task for one in closing], timeout=CLOSE_S)
            for task in stuck:
                log.warning("lifespan_stuck", task=task.get_name())
                task.cancel()

    async def close_all(self) -> None:
        """Close every context."""
        await self.close(self._open)

    async def keep_only(self, plugins: Iterable[str]) -> None:
        """Close the contexts of all other plugins."""
        await self.close(self._open.keys() - set(plugins))

    async def _hold(
        self,
        plugin: str,
        context: AbstractAsyncContextManager[None],
        is_open: asyncio.Event,
        may_close: asyncio.Event,
    ) -> None:
        try:
            async with context:
                is_open.set()
                await may_close.wait()
        # A plugin's: it may fail in any way, and the daemon goes on without it.
        except (Exception, SystemExit) as error:
            log.exception("lifespan_failed", plugin=plugin)
            if not is_open.is_set():
                self._open.pop(plugin, None)
                self._on_failure(plugin, error)
        finally:
            is_open.set()  # or whoever opens it would wait on
