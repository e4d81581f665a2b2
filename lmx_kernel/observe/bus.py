"""The event bus: delivers events to plugins without waiting for them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import structlog

from lmx_kernel.events import KernelEvent, Observer
from lmx_kernel.plugins.calls import Calls, described

MAX_BACKLOG = 1024
MAX_FAILURES = 3
log = structlog.get_logger(__name__)


class Bus:
    """Calls the kernel's own listeners at once, and the observers of plugins in order, each in a
    thread of its own.

    :param observers: the observers of plugins, with the plugin's name.
    :param listeners: the kernel's own; called on the event loop.
    :param calls: where the calls of observers are recorded.
    """

    def __init__(
        self,
        observers: Iterable[tuple[str, Observer]],
        *listeners: Observer,
        calls: Calls | None = None,
    ) -> None:
        self._calls = calls or Calls()
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
        before, after = self._subscribers, dict[str, _Subscriber]()
        for name, observer in observers:
            known = before.get(name)
            is_same = known is not None and known.observer == observer
            after[name] = known if known and is_same else _Subscriber(name, observer, self._calls)
        self._subscribers = after
        for name, subscriber in before.items():
            if after.get(name) is not subscriber:
                subscriber.stop()

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

    def __init__(self, name: str, observer: Observer, calls: Calls) -> None:
        self.observer = observer
        self._name = name
        self._calls = calls
        self._backlog: queue.Queue[KernelEvent | None] = queue.Queue(MAX_BACKLOG)
        self._is_stopped = self._is_full = False
        threading.Thread(target=self._run, name=f"events to {name}", daemon=True).start()

    def put(self, event: KernelEvent) -> None:
        try:
            self._backlog.put_nowait(event)
        except queue.Full:
            if not self._is_full:
                log.warning("events_dropped", plugin=self._name, event_type=type(event).__name__)
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
            event = self._backlog.get()
            if self._is_stopped or event is None:
                return
            try:
                with self._calls.watch(self._name, "lmx_event"):
                    self.observer(event)
            # Observers may fail in any way; the others and the kernel continue.
            except (Exception, SystemExit) as error:
                failures += 1
                reason = f"lmx_event: {described(error)}"
                log.exception("observer_failed", plugin=self._name)
            else:
                failures = 0
        self._calls.mute(self._name, reason)
        log.error("observer_muted", plugin=self._name)
