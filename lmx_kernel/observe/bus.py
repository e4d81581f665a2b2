"""The event bus: delivers events to plugins without waiting for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from lmx_kernel.events import KernelEvent, Observer
from lmx_kernel.observe.subscriber import Subscriber
from lmx_kernel.plugins.calls import Calls


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
        self._subscribers: dict[str, Subscriber[KernelEvent]] = {}
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
        before, after = self._subscribers, dict[str, Subscriber[KernelEvent]]()
        for name, observer in observers:
            known = before.get(name)
            is_same = known is not None and known.call == observer
            after[name] = known if known and is_same else self._subscriber(name, observer)
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

    def _subscriber(self, name: str, observer: Observer) -> Subscriber[KernelEvent]:
        return Subscriber(name, "lmx_event", observer, self._calls)
