"""Responses that the server keeps.

Only the client's body and the answer's events are kept: the response is rendered from them again.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from attrs import frozen

from lmx_kernel.errors import LmxError, NotFoundError
from lmx_kernel.interfaces import StoredAnswer, StoredAnswers
from lmx_responses_api.objects import ResponseObject
from lmx_responses_api.rendering import Ending, Rendering
from lmx_responses_api.response_object import ResponseHead
from lmx_responses_api.schema import ResponseBody

SURFACE = "responses"


@frozen
class Kept:
    """A kept response: its answer and the body that asked for it."""

    answer: StoredAnswer
    body: ResponseBody

    def rendering(self, include: Iterable[str] = (), starting_after: int = -1) -> Rendering:
        """Return what renders it from its first event on.

        :param include: what it has beyond what it was made with.
        :param starting_after: events up to this number are left out.
        """
        head = ResponseHead(
            id=self.answer.id,
            created_at=self.answer.created_at,
            model=self.answer.model or self.body.model,
            body=self.body,
            include=frozenset(include),
        )
        return Rendering(head, starting_after)

    async def response(self, store: StoredAnswers, include: Iterable[str] = ()) -> ResponseObject:
        """Return the whole response; without output while it is computed.

        :raises LmxError: it cannot be read.
        """
        rendering = self.rendering(include)
        if self.answer.outcome is None:
            is_queued = not self.answer.model
            return rendering.head.unfinished("queued" if is_queued else "in_progress")
        ending = Ending.of(self.answer)
        with await store.read(self.answer.id, self.answer.owner) as answer:
            try:
                async for event in answer:
                    rendering.add(event)
            except LmxError as error:
                if error.code != ending.outcome:
                    raise
                rendering.fail(error, ending)
            else:
                rendering.end(answer.usage(), ending)
        return rendering.response


async def find_kept(store: StoredAnswers, response_id: str, owner: str) -> Kept:
    """Return a kept response.

    :raises NotFoundError: there is none of that id that belongs to ``owner``.
    """
    answer = await store.get(response_id, owner)
    if answer.surface != SURFACE:
        raise NotFoundError(f"Response with id '{response_id}' not found.")
    return Kept(answer, msgspec.json.decode(answer.body, type=ResponseBody))
