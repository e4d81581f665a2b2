"""The chat that a request goes on with: what was said before, out of the answers that are kept."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from attrs import frozen
from lmx_responses_api.errors import PreviousResponseNotFoundError

from lmx_kernel.dialect.collected import collect
from lmx_kernel.errors import InvalidRequestError, NotFoundError, UnsupportedFieldError
from lmx_kernel.interfaces import StoredAnswer, StoredAnswers
from lmx_kernel.types import Message, TextPart
from lmx_lmstudio_api.v1.chat_schema import StatefulChatBody

SURFACE = "lmstudio"
MAX_TURNS = 1024
_PREVIOUS = "previous_response_id"
_TEXTS = ("message", "text")


@frozen
class _Turn:
    answer: StoredAnswer
    body: StatefulChatBody


@frozen
class History:
    """The kept chats of one client.

    :param owner: the name of its key.
    """

    store: StoredAnswers
    owner: str

    async def messages(self, body: StatefulChatBody) -> tuple[Message, ...]:
        """Return all messages of the chat of ``body``, oldest first.

        :raises PreviousResponseNotFoundError: an earlier answer is not kept.
        :raises UnsupportedFieldError: the input is not all text.
        """
        said = user_message(body)
        earlier = await self._earlier(body)
        messages: list[Message] = []
        for turn in reversed(earlier):
            messages += [user_message(turn.body), await self._answer(turn)]
        prompts = (one.system_prompt for one in (body, *(turn.body for turn in earlier)))
        system = next((prompt for prompt in prompts if prompt is not None), None)
        begin = [Message("system", (TextPart(system),))] if system else []
        return (*begin, *messages, said)

    async def _earlier(self, body: StatefulChatBody) -> list[_Turn]:
        """Return the turns before ``body``, newest first."""
        turns: list[_Turn] = []
        wanted = body.previous_response_id
        while wanted:
            if len(turns) == MAX_TURNS:
                raise InvalidRequestError(f"{_PREVIOUS}: the chat is too long", param=_PREVIOUS)
            turns.append(await self._find(wanted))
            wanted = turns[-1].body.previous_response_id
        return turns

    async def _find(self, response_id: str) -> _Turn:
        try:
            answer = await self.store.get(response_id, self.owner)
            if answer.surface != SURFACE:
                raise NotFoundError("it is another API's")
        except NotFoundError:
            raise PreviousResponseNotFoundError(
                f"Previous response with id '{response_id}' not found.", param=_PREVIOUS
            ) from None
        return _Turn(answer, msgspec.json.decode(answer.body, type=StatefulChatBody))

    async def _answer(self, turn: _Turn) -> Message:
        with await self.store.read(turn.answer.id, self.owner) as answer:
            said = (await collect(answer))[0]
        return Message("assistant", (TextPart(said.text),), reasoning=said.reasoning or None)


def user_message(body: StatefulChatBody) -> Message:
    """Return what the user says.

    :raises UnsupportedFieldError: it is not all text.
    :raises InvalidRequestError: a text is missing.
    """
    return Message("user", tuple(_parts(body)))


def _parts(body: StatefulChatBody) -> Iterator[TextPart]:
    if isinstance(body.input, str):
        yield TextPart(body.input)
        return
    for index, item in enumerate(body.input):
        where = f"input[{index}]"
        if item.type not in _TEXTS:
            raise UnsupportedFieldError(
                f"{where}.type: only text is supported", param=f"{where}.type"
            )
        if item.content is None:
            field = f"{where}.content"
            raise InvalidRequestError(f"{field}: this field is required", param=field)
        yield TextPart(item.content)
