"""The event bus: delivers events to plugins without waiting for them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import structlog

from lmx_kernel.events import KernelEvent, Observer

MAX_BACKLOG = 1024
MAX_FAILURES = 3
log = structlog.get_logger(__name__)


class Bus:
    """Calls the kernel's own listeners at once, and the observers of plugins in order, each in a
    thread of its own.

    :param observers: the observers of plugins, with the plugin's name.
    :param listeners: the kernel's own; called on the event loop.
    """

    def __init__(self, observers: Iterable[tuple[str, Observer]], *listeners: Observer) -> None:
        self._subscribers: dict[str, _Subscriber] = {}
        self._listeners = list(listeners)
        self.use_observers(observers)

    def publish(self, event: KernelEvent) -> None:
        """Deliver an event; waits for no plugin."""
        for listener in self._listeners:
            listener(event)
        for subscriber in self._subscribers.values():
            subscriber.put(event)

    def use_observers(self, observers: Iterable[tuple[str, Observer]]) -> None:
        """Deliver events to these observers from now on, and to no others."""
        self._subscribers = {
            name: self._subscribers.get(name) or _Subscriber(name, observer)
            for name, observer in observers
        }

    def add_listener(self, listener: Observer) -> None:
        """Call ``listener`` for every event on the event loop, from now on."""
        self._listeners.append(listener)

    @contextmanager
    def listen(self, listener: Observer) -> Iterator[None]:
        """Call ``listener`` for every event on the event loop, while the context is open."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)


class _Subscriber:
    """The queue and thread of one observer. Overflow is dropped; an observer that fails three times
    in a row is muted.
    """

    def __init__(self, name: str, observer: Observer) -> None:
        self._name = name
        self._observer = observer
        self._backlog: queue.Queue[KernelEvent] = queue.Queue(MAX_BACKLOG)
        threading.Thread(target=self._run, name=f"events to {name}", daemon=True).start()

    def put(self, event: KernelEvent) -> None:
        try:
            self._backlog.put_nowait(event)
        except queue.Full:
            log.warning("event_dropped", plugin=self._name, event_type=type(event).__name__)

    def _run(self) -> None:
        failures = 0
        while failures < MAX_FAILURES:
            event = self._backlog.get()
            try:
                self._observer(event)
            # Observers may fail in any way; the others and the kernel continue.
            except (Exception, SystemExit):
                failures += 1
                log.exception("observer_failed", plugin=self._name)
            else:
                failures = 0
        log.error("observer_muted", plugin=self._name)
