"""Tells those who read stored answers that there is more to read."""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary

from attrs import define, field


@define
class Changes:
    """Holds what the readers of each answer wait for, as long as they do.

    :ivar are_over: answers change no more until the daemon is started again.
    """

    are_over: bool = False
    _next: WeakValueDictionary[str, asyncio.Event] = field(factory=WeakValueDictionary)

    def next(self, answer_id: str) -> asyncio.Event:
        """Return what is set at the answer's next change."""
        return self._next.setdefault(answer_id, asyncio.Event())

    def tell(self, answer_id: str) -> None:
        """An answer has changed, or its reader."""
        if change := self._next.pop(answer_id, None):
            change.set()

    def end(self) -> None:
        """There are no more changes."""
        self.are_over = True
        for answer_id in list(self._next):
            self.tell(answer_id)
