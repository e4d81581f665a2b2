"""Kept responses as streams, from any event on."""

from __future__ import annotations

import time
from collections.abc import Iterable

from attrs import evolve
from falcon.asgi import Response

from lmx_kernel.errors import LmxError, NotFoundError
from lmx_kernel.http.sse import AnswerStream, close_with_request, send_stream
from lmx_kernel.interfaces import Answer, StoredAnswer, StoredAnswers
from lmx_kernel.types import Event, Usage
from lmx_responses_api.kept import Kept
from lmx_responses_api.rendering import CANCELLED, Ending
from lmx_responses_api.writer import EventWriter


async def stream_kept(
    resp: Response,
    store: StoredAnswers,
    kept: Kept,
    *,
    heartbeat_s: float,
    starting_after: int = -1,
    include: Iterable[str] = (),
) -> None:
    """Answer with the events of a kept response; those that are not computed yet come when they
    are. A client that leaves does not end the response.

    :param heartbeat_s: the longest silence.
    :param starting_after: events up to this number are left out.
    :param include: as for :meth:`Kept.rendering`.
    :raises LmxError: it cannot be read.
    """
    answer = KeptReading(await store.read(kept.answer.id, kept.answer.owner), store, kept.answer)
    writer = EventWriter(
        rendering=kept.rendering(include, starting_after),
        ending=lambda: Ending.of(answer.kept),
        numbers_heartbeats=False,
    )
    close_with_request(answer.close)
    send_stream(resp, AnswerStream(answer, writer, heartbeat_s).frames())


class KeptReading(Answer):
    """Reads a kept answer, and finds out how it ended before its end is told.

    :ivar kept: the answer as it is kept.
    """

    def __init__(self, answer: Answer, store: StoredAnswers, kept: StoredAnswer) -> None:
        self.id, self.model = answer.id, answer.model
        self.kept = kept
        self._answer = answer
        self._store = store

    async def next(self, timeout_s: float | None = None) -> Event | None:
        """Return the next event; see :meth:`Answer.next`."""
        try:
            return await self._answer.next(timeout_s)
        except (StopAsyncIteration, LmxError):
            await self._find_ending()
            raise

    def usage(self) -> Usage:
        """Return its tokens and times so far."""
        return self._answer.usage()

    def close(self) -> None:
        """End the reading."""
        self._answer.close()
        self.outcome = self._answer.outcome

    async def _find_ending(self) -> None:
        try:
            self.kept = await self._store.get(self.kept.id, self.kept.owner)
        except NotFoundError:  # deleted meanwhile, which cancels it
            self.kept = evolve(self.kept, ended_at=time.time(), outcome=CANCELLED)
        except LmxError:  # the file cannot be read now: the client may come again
            pass
