"""Calls a hook of a plugin with one item after the other, without waiting for it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

import structlog

from lmx_kernel.plugins.calls import Calls, described

MAX_BACKLOG = 1024
MAX_FAILURES = 3
T = TypeVar("T")
log = structlog.get_logger(__name__)


class Subscriber(Generic[T]):
    """The queue and thread of one plugin's hook. Overflow is dropped; a plugin whose calls fail
    three times in a row is muted.

    :param hook: for the record of calls.
    :param call: called with each item.
    :param calls: where the calls are recorded.
    """

    def __init__(self, name: str, hook: str, call: Callable[[T], object], calls: Calls) -> None:
        self.call = call
        self._hook = hook
        self._name = name
        self._calls = calls
        self._backlog: queue.Queue[T | None] = queue.Queue(MAX_BACKLOG)
        self._is_stopped = self._is_full = False
        threading.Thread(target=self._run, name=f"events to {name}", daemon=True).start()

    def put(self, item: T) -> None:
        """Add an item, and return at once."""
        try:
            self._backlog.put_nowait(item)
        except queue.Full:
            if not self._is_full:
                log.warning("events_dropped", plugin=self._name, event_type=type(item).__name__)
            self._is_full = True
        else:
            self._is_full = False

    def stop(self) -> None:
        """Deliver no further event, and end the thread after the current one."""
        self._is_stopped = True
        with suppress(queue.Full):  # then it looks at the mark before it delivers another
            self._backlog.put_nowait(None)

    def _run(self) -> None:
        failures, reason = 0, ""
        while failures < MAX_FAILURES:
            item = self._backlog.get()
            if self._is_stopped or item is None:
                return
            try:
                with self._calls.watch(self._name, self._hook):
                    self.call(item)
            # Observers may fail in any way; the others and the kernel continue.
            except (Exception, SystemExit) as error:
                failures += 1
                reason = f"{self._hook}: {described(error)}"
                log.exception("observer_failed", plugin=self._name)
            else:
                failures = 0
        self._calls.mute(self._name, reason)
        log.error("observer_muted", plugin=self._name)
