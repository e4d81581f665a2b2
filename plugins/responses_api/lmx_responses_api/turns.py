"""The items of a conversation to the turns that the kernel has.

What the model produced in one turn comes back as several items: its reasoning, its text and each of
its calls. They are joined into one message again, so that the prompt begins as the last one did.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec
from attrs import define, evolve, field

from lmx_kernel.errors import InvalidRequestError, UnsupportedFieldError
from lmx_kernel.types import Message, TextPart, ToolCall
from lmx_responses_api.items import (
    CallOutputItem,
    CustomCallItem,
    FunctionCallItem,
    Item,
    MessageItem,
    Part,
    ReasoningItem,
)
from lmx_responses_api.sealed import unseal
from lmx_responses_api.toolbox import INPUT, Toolbox

PlacedItem = tuple[str, Item]
"""An item, and the field that has it."""

TEXTS = frozenset({"input_text", "output_text", "text", "summary_text", "reasoning_text"})
EMPTY = Message("user", (TextPart(""),))
"""What is asked where nothing was: every template takes it."""

_SYSTEM = frozenset({"system", "developer"})


def conversation(
    items: Iterable[PlacedItem], toolbox: Toolbox, instructions: str | None
) -> tuple[Message, ...]:
    """Return the messages of a request.

    :raises InvalidRequestError: naming the field that is wrong.
    :raises UnsupportedFieldError: naming the content that LMX does not take.
    """
    turns = Turns(toolbox)
    for where, item in items:
        turns.add(where, item)
    messages = turns.messages
    if instructions:
        messages.insert(0, Message("system", (TextPart(instructions),)))
    if all(message.role in _SYSTEM for message in messages):
        messages.append(EMPTY)
    return tuple(messages)


@define
class Turns:
    """The messages so far. Reasoning is held until the text or the call that it belongs to; at the
    end of a turn it is left out.
    """

    toolbox: Toolbox
    messages: list[Message] = field(factory=list)
    _reasoning: str = ""

    def add(self, where: str, item: Item) -> None:
        """Add the next item."""
        if isinstance(item, ReasoningItem):
            self._reasoning += _reasoning(item)
        elif isinstance(item, FunctionCallItem):
            self._call(item, item.arguments or "")
        elif isinstance(item, CustomCallItem):
            self._call(item, msgspec.json.encode({INPUT: item.input or ""}).decode())
        elif isinstance(item, CallOutputItem):
            parts = tuple(_output_parts(item.output))
            self._append(Message("tool", parts, tool_call_id=item.call_id))
        elif isinstance(item, MessageItem):
            parts = tuple(_parts(f"{where}.content", item.content))
            self._append(Message(item.role, parts))

    def _append(self, message: Message) -> None:
        if message.role == "assistant" and self._reasoning:
            message = evolve(message, reasoning=self._reasoning)
        self._reasoning = ""
        self.messages.append(message)

    def _call(self, item: FunctionCallItem | CustomCallItem, arguments: str) -> None:
        name = self.toolbox.model_name(item.name, item.namespace) or item.name
        call = ToolCall(item.call_id, name, arguments)
        last = self.messages[-1] if self.messages else None
        if last is None or last.role != "assistant" or self._reasoning:
            self._append(Message("assistant", (), tool_calls=(call,)))
        else:
            self.messages[-1] = evolve(last, tool_calls=(*last.tool_calls, call))


def _reasoning(item: ReasoningItem) -> str:
    """Return the reasoning of an item. What another server encrypted is left out."""
    if text := _joined(item.content):
        return text
    return unseal(item.encrypted_content or "") or _joined(item.summary)


def _joined(parts: Sequence[Part] | None) -> str:
    return "".join(part.text or "" for part in parts or () if part.type in TEXTS)


def _parts(where: str, content: str | list[Part] | None) -> Iterator[TextPart]:
    if isinstance(content, str):
        yield TextPart(content)
        return
    for index, part in enumerate(content or ()):
        path = f"{where}[{index}]"
        if part.type not in TEXTS and part.type != "refusal":
            raise UnsupportedFieldError(f"{path}.type: {part.type} is not supported", param=path)
        text = part.refusal if part.type == "refusal" else part.text
        if text is None:
            name = f"{path}.{'refusal' if part.type == 'refusal' else 'text'}"
            raise InvalidRequestError(f"{name}: this field is required", param=name)
        yield TextPart(text)


def _output_parts(output: str | list[Part] | None) -> Iterator[TextPart]:
    """Yield the text of a tool's result. What is no text is named only: it was the agent's tool
    that returned it, and the session must go on.
    """
    if isinstance(output, str):
        yield TextPart(output)
        return
    for part in output or ():
        is_text = part.type in TEXTS and part.text is not None
        yield TextPart(part.text or "" if is_text else f"[{part.type} left out: text only]")
