"""Deadlines of a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

Act = Callable[[], object]


class Deadline:
    """One thing that will happen unless it is called off."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_set(self) -> bool:
        """Whether it was set and not cleared."""
        return self._timer is not None

    def set(self, seconds: float, act: Act) -> None:
        """Call ``act`` in ``seconds``, in place of what was set before."""
        self.clear()
        self._timer = self._loop.call_later(seconds, act)

    def clear(self) -> None:
        """Call nothing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class StallWatch:
    """Notices a reader that takes nothing.

    :param size: tells how many bytes wait for the reader.
    :param act: called when the reader took nothing for ``patience_s``.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        patience_s: float,
        size: Callable[[], int],
        act: Act,
    ) -> None:
        self._deadline = Deadline(loop)
        self._patience_s = patience_s
        self._size = size
        self._act = act
        self._seen_bytes = 0

    def start(self) -> None:
        """Look from now on; nothing more is written meanwhile."""
        self._seen_bytes = self._size()
        self._deadline.set(self._patience_s, self._look)

    def stop(self) -> None:
        """Look no more."""
        self._deadline.clear()

    def _look(self) -> None:
        if self._size() < self._seen_bytes:
            self.start()
        else:
            self._act()
