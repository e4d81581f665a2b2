"""Conversations as the protocol has them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from lmx_kernel.dialect.json_values import check_json
from lmx_kernel.errors import InvalidRequestError, UnsupportedFieldError
from lmx_kernel.types import Message, TextPart, ToolCall

MAX_MESSAGES = 8192
_ROLES = ("system", "user", "assistant", "tool")


class CallRequest(Struct, frozen=True):
    """A call of a tool that a model asked for."""

    name: str
    id: str | None = None
    arguments: dict[str, Any] | None = None


class Part(Struct, rename="camel", frozen=True):
    """A part of a message. Which fields it has depends on its type: text, file, toolCallRequest or
    toolCallResult.
    """

    type: str
    text: str | None = None
    name: str | None = None
    file_type: str | None = None
    tool_call_request: CallRequest | None = None
    tool_call_id: str | None = None
    content: str | None = None


class Turn(Struct, frozen=True):
    """A message."""

    role: str
    content: list[Part]


class History(Struct, frozen=True):
    """A conversation, oldest message first."""

    messages: Annotated[list[Turn], Meta(max_length=MAX_MESSAGES)]


def messages_of(history: History) -> tuple[Message, ...]:
    """Return the messages of a conversation.

    :raises InvalidRequestError: naming the part that is wrong.
    :raises UnsupportedFieldError: it has a file, which no model here can take.
    """
    numbers = itertools.count(1)
    turns = enumerate(history.messages)
    return tuple(
        message
        for index, turn in turns
        for message in _messages(f"history.messages[{index}]", turn, numbers)
    )


def text_of(history: History) -> str:
    """Return the text of all messages together; raises as :func:`messages_of`."""
    return "".join(message.text for message in messages_of(history))


def _messages(where: str, turn: Turn, numbers: Iterator[int]) -> Iterator[Message]:
    """Yield a turn's messages: each result of a tool is one of its own."""
    if turn.role not in _ROLES:
        raise InvalidRequestError(f"{where}.role: unknown", param=f"{where}.role")
    texts: list[TextPart] = []
    calls: list[ToolCall] = []
    for index, part in enumerate(turn.content):
        place = f"{where}.content[{index}]"
        if part.type == "text" and part.text is not None:
            texts.append(TextPart(part.text))
        elif part.type == "toolCallRequest" and part.tool_call_request is not None:
            calls.append(_call(place, part.tool_call_request, numbers))
        elif part.type == "toolCallResult" and part.content is not None:
            content = (TextPart(part.content),)
            yield Message("tool", content, tool_call_id=part.tool_call_id, name=part.name)
        else:
            raise _wrong(place, part)
    if texts or calls or turn.role != "tool":
        yield Message(turn.role, tuple(texts), tool_calls=tuple(calls))


def _call(place: str, call: CallRequest, numbers: Iterator[int]) -> ToolCall:
    arguments = call.arguments or {}
    check_json(f"{place}.toolCallRequest.arguments", arguments)
    number = next(numbers)
    return ToolCall(call.id or f"call_{number}", call.name, msgspec.json.encode(arguments).decode())


def _wrong(place: str, part: Part) -> InvalidRequestError:
    if part.type == "file":
        name = (part.name or "")[:200]
        kind = (part.file_type or "file")[:50]
        return UnsupportedFieldError(
            f"{place}: models here take text only, and {name!r} is of the type {kind}", param=place
        )
    return InvalidRequestError(f"{place}: unknown type, or a field is missing", param=place)
