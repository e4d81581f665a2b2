"""Calls code of a plugin with one item after the other, without waiting for it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import structlog

MAX_BACKLOG = 1024
MAX_FAILURES = 3
T = TypeVar("T")
log = structlog.get_logger(__name__)


class Subscriber(Generic[T]):
    """The queue and thread of one plugin. Overflow is dropped; a plugin that fails three times in a
    row is muted.
    """

    def __init__(self, plugin: str, call: Callable[[T], object]) -> None:
        self._plugin = plugin
        self._call = call
        self._backlog: queue.Queue[T | None] = queue.Queue(MAX_BACKLOG)
        self._is_stopped = False
        self._dropped = 0
        threading.Thread(target=self._run, name=f"events to {plugin}", daemon=True).start()

    def put(self, item: T) -> None:
        """Add an item, and return at once."""
        try:
            self._backlog.put_nowait(item)
        except queue.Full:
            self._dropped += 1
            if self._dropped == 1:
                log.warning("event_dropped", plugin=self._plugin, event_type=type(item).__name__)
        else:
            self._dropped = 0

    def stop(self) -> None:
        """Call nothing any more: the thread ends after the call that it is in."""
        self._is_stopped = True
        if self._backlog.empty():
            self._backlog.put_nowait(None)  # which wakes it

    def _run(self) -> None:
        failures = 0
        while failures < MAX_FAILURES:
            item = self._backlog.get()
            if self._is_stopped or item is None:
                return
            try:
                self._call(item)
            # Observers may fail in any way; the others and the kernel continue.
            except (Exception, SystemExit):
                failures += 1
                log.exception("observer_failed", plugin=self._plugin)
            else:
                failures = 0
        log.error("observer_muted", plugin=self._plugin)
