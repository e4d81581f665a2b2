"""The event bus: tells plugins what happened, without ever waiting for one of them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable

import structlog

from lmx_kernel.events import KernelEvent

MAX_BACKLOG = 1024
MAX_FAILURES = 3
Observer = Callable[[KernelEvent], None]
log = structlog.get_logger(__name__)


class Bus:
    """Hands each event to every observer, in order, each in a thread of its own."""

    def __init__(self, observers: Iterable[tuple[str, Observer]]) -> None:
        self._desks = [_Desk(name, observer) for name, observer in observers]

    def publish(self, event: KernelEvent) -> None:
        """Tell everybody; returns at once."""
        for desk in self._desks:
            desk.put(event)


class _Desk:
    """One observer's backlog. What it is too slow for is dropped; if it keeps failing, it is muted."""

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
            # An observer may fail in any way; the others and the kernel go on.
            except (Exception, SystemExit):  # noqa: BLE001
                failures += 1
                log.exception("observer_failed", plugin=self._name)
            else:
                failures = 0
        log.error("observer_muted", plugin=self._name)
