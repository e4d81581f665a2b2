"""Work that is done beside a step of the engine."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from attrs import define, field


@define(eq=False)
class Beside:
    """Puts one piece of work off, to do it in a thread while the engine computes.

    All methods are called by the thread that steps the engine.
    """

    _threads: ThreadPoolExecutor = field(
        factory=lambda: ThreadPoolExecutor(1, "beside-the-step"), init=False
    )
    _work: Callable[[], None] | None = field(default=None, init=False)
    _running: Future[None] | None = field(default=None, init=False)

    def put_off(self, work: Callable[[], None]) -> None:
        """Do ``work`` beside the next step."""
        self._work = work

    def do_now(self) -> None:
        """Do what was put off, here."""
        work, self._work = self._work, None
        if work is not None:
            work()

    def begin(self) -> None:
        """Begin with what was put off, in the thread: it starts when this one lets go of the
        interpreter, which an engine does while it computes.
        """
        work, self._work = self._work, None
        if work is not None:
            self._running = self._threads.submit(work)

    def wait(self) -> None:
        """Wait until what was begun is done.

        :raises Exception: whatever it raised.
        """
        running, self._running = self._running, None
        if running is not None:
            running.result()
