"""Messages and tools in the form that chat templates take them: dictionaries."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import frozen

from lmx_kernel.types import Message, Tool, ToolCall

SHORT_ID_CHARS = 9


@frozen(kw_only=True)
class CallStyle:
    """The form in which a template takes an assistant's calls.

    :ivar arguments_as_text: arguments are JSON text, not an object.
    :ivar content_as_none: the content of a message without text is None, not "".
    :ivar short_ids: ids have nine letters and digits.
    """

    arguments_as_text: bool = False
    content_as_none: bool = False
    short_ids: bool = False


def as_dicts(
    messages: Iterable[Message], style: CallStyle, *, as_parts: bool
) -> Iterable[dict[str, Any]]:
    """Yield messages as dictionaries of the kind that templates are written for.

    :param as_parts: content is a list of parts, not a text.
    """
    names_by_call: dict[str, str] = {}
    for message in messages:
        names_by_call |= {call.id: call.name for call in message.tool_calls}
        yield {
            "role": message.role,
            "content": _content(message, style, as_parts=as_parts),
            **_calls(message, style),
            **_names(message, style, names_by_call),
            **_reasoning(message),
        }


def described(tool: Tool) -> dict[str, Any]:
    """Return a tool as templates take it."""
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters or {"type": "object", "properties": {}},
    }
    return {"type": "function", "function": function}


def _content(message: Message, style: CallStyle, *, as_parts: bool) -> object:
    if message.tool_calls and style.content_as_none and not message.text:
        return None
    if as_parts:
        return [{"type": "text", "text": part.text} for part in message.parts]
    return message.text


def _calls(message: Message, style: CallStyle) -> dict[str, Any]:
    calls = [_called(call, style) for call in message.tool_calls]
    return {"tool_calls": calls} if calls else {}


def _names(message: Message, style: CallStyle, names_by_call: Mapping[str, str]) -> dict[str, Any]:
    """Return what names a message's author: the call that a tool's result belongs to, or a name."""
    if message.role == "tool":
        call_id = message.tool_call_id or ""
        name = message.name or names_by_call.get(call_id, "")
        return {"tool_call_id": _id(call_id, style), "name": name}
    return {} if message.name is None else {"name": message.name}


def _reasoning(message: Message) -> dict[str, Any]:
    if not message.reasoning:
        return {}
    names = {"reasoning_content": message.reasoning}
    # Templates that write ``thinking`` refuse a message that has content as well.
    return names if message.text else names | {"thinking": message.reasoning}


def _called(call: ToolCall, style: CallStyle) -> dict[str, Any]:
    arguments: object = call.arguments or "{}"
    if not style.arguments_as_text:
        try:
            arguments = json.loads(call.arguments or "{}")
        except (ValueError, RecursionError):
            arguments = {"arguments": call.arguments}  # the model's own mistake, shown to it
    function = {"name": call.name, "arguments": arguments}
    return {"id": _id(call.id, style), "type": "function", "function": function}


def _id(call_id: str, style: CallStyle) -> str:
    if not style.short_ids:
        return call_id
    return hashlib.sha256(call_id.encode(errors="replace")).hexdigest()[:SHORT_ID_CHARS]
