"""Kept responses as streams, from any event on."""

from __future__ import annotations

from collections.abc import Iterable

from falcon.asgi import Response

from lmx_kernel.http.sse import AnswerStream, close_with_request, send_stream
from lmx_kernel.interfaces import StoredAnswer, StoredAnswers
from lmx_kernel.types import Usage
from lmx_responses_api.kept import Kept
from lmx_responses_api.rendering import Ending
from lmx_responses_api.writer import EventWriter


def stream_kept(
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
    """
    answer_id, owner = kept.answer.id, kept.answer.owner

    def now() -> StoredAnswer:
        return store.get(answer_id, owner)

    def ending() -> Ending:
        return Kept(now(), kept.body).ending

    def usage() -> Usage | None:
        return now().usage

    writer = EventWriter(
        rendering=kept.rendering(include),
        ending=ending,
        usage=usage,
        numbers_heartbeats=False,
        starting_after=starting_after,
    )
    answer = store.read(answer_id, owner)
    close_with_request(answer.close)
    send_stream(resp, AnswerStream(answer, writer, heartbeat_s).frames())
