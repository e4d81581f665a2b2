"""Long computations, and how another thread ends them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from attrs import define, field

from lmx_gguf_backend.pulse import Pulse

WORTH_S = 0.25
"""What ends within this time, as far as one knows, is not interrupted: nothing of it is lost."""


@define
class Interruption:
    """Lets a piece of a prompt be long as long as nobody waits for it to end. After one that was
    interrupted, the next one is not, so that every prompt is computed some time.

    :meth:`ask` may be called by any thread; the other methods by the thread that computes.
    """

    _pulse: Pulse
    _is_asked: bool = field(default=False, init=False)
    _may_stop: bool = field(default=True, init=False)
    _ends_s: float | None = field(default=None, init=False)
    _lock: threading.Lock = field(factory=threading.Lock, init=False)

    @property
    def allows_long(self) -> bool:
        """Whether what is computed next may be long."""
        return self._pulse.can_stop and not self._is_asked

    def ask(self) -> None:
        """End the long computation that runs, or have the next one be short."""
        with self._lock:
            self._is_asked = True
            if self._ends_s is not None:
                self._stop(self._ends_s - time.perf_counter())

    def settle(self) -> None:
        """Take note that nobody waits any more."""
        self._is_asked = False

    @contextmanager
    def during(self, expected_s: float) -> Iterator[None]:
        """Let the computation of the block be interrupted.

        :param expected_s: what it will probably take.
        """
        with self._lock:
            could_stop = self._may_stop
            self._ends_s = time.perf_counter() + expected_s
            if self._is_asked:  # since it was planned
                self._stop(expected_s)
        try:
            yield
        finally:
            with self._lock:
                self._ends_s = None
                self._pulse.allow()
                self._may_stop = self._may_stop or not could_stop

    def _stop(self, left_s: float) -> None:
        if self._may_stop and left_s > WORTH_S:
            self._may_stop = False
            self._pulse.stop()
