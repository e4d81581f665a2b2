"""The turns of a conversation, as the kernel has them."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from attrs import define, field

from lmx_kernel.dialect.json_values import check_json
from lmx_kernel.dialect.refused import check_supported
from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.types import Message, TextPart, ToolCall
from lmx_ollama_api.schema import CallItem, ChatMessage


def turns(given: Iterable[ChatMessage]) -> tuple[Message, ...]:
    """Return the turns of a conversation.

    :raises InvalidRequestError: naming the field that is wrong.
    :raises UnsupportedFieldError: naming the field that LMX does not do.
    """
    calls = _Calls()
    return tuple(_turn(f"messages[{index}]", one, calls) for index, one in enumerate(given))


@define
class _Calls:
    """The calls so far: clients of this dialect often give them no ids.

    :ivar open: ids and names of those that are not answered yet.
    """

    count: int = 0
    open: dict[str, str] = field(factory=dict)

    def add(self, call: ToolCall) -> None:
        """Note a call."""
        self.count += 1
        self.open[call.id] = call.name

    def answer(self, call_id: str | None, name: str | None) -> str | None:
        """Return the id of the call that a tool's message answers; None if there is none."""
        found = call_id or next(
            (one for one, called in self.open.items() if name in (None, called)), None
        )
        self.open.pop(found or "", None)
        return found


def _turn(path: str, given: ChatMessage, calls: _Calls) -> Message:
    check_supported(given, f"{path}.")
    if given.tool_calls and given.role != "assistant":
        where = f"{path}.tool_calls"
        raise InvalidRequestError(f"{where}: only an assistant calls", param=where)
    made = []
    for index, item in enumerate(given.tool_calls or ()):
        made.append(_call(f"{path}.tool_calls[{index}]", item, calls.count))
        calls.add(made[-1])
    is_tool = given.role == "tool"
    return Message(
        role=given.role,
        parts=(TextPart(given.content),) if given.content is not None else (),
        tool_calls=tuple(made),
        tool_call_id=calls.answer(given.tool_call_id, given.tool_name) if is_tool else None,
        name=given.tool_name if is_tool else None,
        reasoning=given.thinking,
    )


def _call(path: str, item: CallItem, count: int) -> ToolCall:
    arguments = item.function.arguments
    if not isinstance(arguments, str):
        check_json(f"{path}.function.arguments", arguments)
        arguments = msgspec.json.encode(arguments or {}).decode()
    return ToolCall(item.id or f"call_{count}", item.function.name, arguments)
