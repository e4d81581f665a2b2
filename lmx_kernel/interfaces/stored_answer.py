"""Stored answers: kept in a file for later requests, and computed whoever is connected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from attrs import frozen

from lmx_kernel.interfaces.answer import Answer
from lmx_kernel.types import Event, GenerationRequest, Usage


@frozen(kw_only=True)
class StoredAnswer:
    """An answer that is kept, without its events.

    :ivar id: unique; chosen by the surface.
    :ivar owner: the name of the API key that it belongs to; "" without keys.
    :ivar surface: the name of the surface that it belongs to.
    :ivar body: what the surface needs to render it, in a form of its own.
    :ivar model: the catalogue id of the model that answers; "" while that is not known.
    :ivar created_at: in seconds since the epoch, as ``ended_at``, which is None while it runs.
    :ivar outcome: ``ok``, ``cancelled`` or an error's code; None while it runs.
    :ivar problem: the error's message.
    :ivar usage: its tokens and times; None while it runs.
    """

    id: str
    owner: str
    surface: str
    body: bytes
    model: str = ""
    created_at: float
    ended_at: float | None = None
    outcome: str | None = None
    problem: str = ""
    usage: Usage | None = None


class StoredAnswers(Protocol):
    """The answers that are kept in a file, within limits of count, bytes and age: the oldest
    complete ones are forgotten first. Every method but :meth:`put` raises UnavailableError or
    DiskFullError while the file cannot be used.
    """

    async def put(self, answer: StoredAnswer, events: Sequence[Event]) -> None:
        """Keep a complete answer, or log why it cannot be kept.

        :param answer: without an outcome, it is ``ok``; without an end, it ends now.
        :raises ConflictError: there is one of that id.
        """
        ...

    async def start(self, answer: StoredAnswer, request: GenerationRequest) -> None:
        """Compute an answer in the background. It goes on when nobody reads it, and after the
        daemon was restarted or killed. Returns when it is queued and kept; what is found wrong
        later ends the answer with that error.

        :param answer: its model, end, outcome, problem and usage are set by the kernel.
        :raises ConflictError: there is one of that id.
        :raises InvalidRequestError: the request has several candidates, or generates no text.
        :raises QueueFullError: as many as may be kept are computed already.
        :raises LmxError: as :meth:`Kernel.generate`; nothing is kept then.
        """
        ...

    async def get(self, answer_id: str, owner: str) -> StoredAnswer:
        """Return an answer.

        :raises NotFoundError: there is none of that id that belongs to ``owner``.
        """
        ...

    async def read(self, answer_id: str, owner: str) -> Answer:
        """Return an answer to be read from its first event on, those that come later included.
        Closing it ends the reading alone. Its events are those that the answer had, in order; none
        is left out or said twice, whatever happened to the daemon. What an answer that is computed
        says is read once it is on disk, so a moment later.

        While the daemon stops, the events of an answer that goes on later end with
        UnavailableError; those of one that is deleted with NotFoundError.

        :raises NotFoundError: as :meth:`get`.
        """
        ...

    async def cancel(self, answer_id: str, owner: str) -> StoredAnswer:
        """Cancel an answer that is computed in the background, and return it; what was said so far
        is kept. Has no effect on a complete one.

        :raises NotFoundError: as :meth:`get`.
        """
        ...

    async def delete(self, answer_id: str, owner: str) -> None:
        """Forget an answer; one that is still computed is cancelled.

        :raises NotFoundError: as :meth:`get`.
        """
        ...
