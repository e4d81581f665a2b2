"""An answer that is kept when it ends."""

from __future__ import annotations

import time

from attrs import evolve

from lmx_kernel.errors import LmxError
from lmx_kernel.interfaces import Answer, StoredAnswer, StoredAnswers
from lmx_kernel.types import Event, Usage


class RecordedAnswer(Answer):
    """Passes on the events of an answer, and keeps them at its end.

    An answer that was refused before its first event is not kept, nor one whose reader left: the
    client could not know its id, or does not want it.

    :param kept: what is kept of it, but for its end.
    :ivar kept: the same, with its end once that is told.
    """

    def __init__(self, answer: Answer, store: StoredAnswers, kept: StoredAnswer) -> None:
        self.id, self.model = answer.id, answer.model
        self._answer = answer
        self._store = store
        self.kept = kept
        self._events: list[Event] = []

    async def next(self, timeout_s: float | None = None) -> Event | None:
        """Return the next event; see :meth:`Answer.next`. It is kept before its end is told."""
        try:
            event = await self._answer.next(timeout_s)
        except StopAsyncIteration:
            await self._keep("ok", "")
            raise
        except LmxError as error:
            await self._keep(error.code, error.message)
            raise
        if event is not None:
            self._events.append(event)
        return event

    def usage(self) -> Usage:
        """Return its tokens and times so far."""
        return self._answer.usage()

    def close(self) -> None:
        """Cancel what still runs."""
        self._answer.close()
        self.outcome = self.outcome or self._answer.outcome

    async def _keep(self, outcome: str, problem: str) -> None:
        self.outcome = outcome
        self.kept = evolve(
            self.kept,
            ended_at=time.time(),
            outcome=outcome,
            problem=problem,
            usage=self._answer.usage(),
        )
        if self._events:
            await self._store.put(self.kept, self._events)
