"""For models whose template writes no tools: they are explained in plain words."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from attrs import evolve

from lmx_chat_formats import grammar
from lmx_chat_formats.hermes import CLOSING, OPENING, HermesFormat
from lmx_kernel.text.formats import CallSyntax
from lmx_kernel.types import Message, TextPart, Tool, ToolCall


class GenericFormat(HermesFormat):
    """As :class:`HermesFormat`; the tags may be missing."""

    name = "generic"
    signs = ()
    has_bare_calls = True
    explains_tools = True
    example = f"""{OPENING}
{{"name": "the name", "arguments": {{"an argument": "its value"}}}}
{CLOSING}"""

    def calls(self, tools: Sequence[Tool], *, parallel: bool) -> CallSyntax:
        tagged = f'"{OPENING}" "\\n" object "\\n" "{CLOSING}"'
        calls = grammar.repeated("call", r'"\n"', parallel=parallel)
        rules = f"{calls}call: {tagged} | object\n{grammar.json_call(tools)}"
        return CallSyntax(triggers=(OPENING,), grammar=rules, bare=grammar.BARE)

    def explain(self, messages: Sequence[Message], tools: Sequence[Tool]) -> Sequence[Message]:
        """Return ``messages`` with an introduction in the first, and all calls as text."""
        return super().explain(list(_joined(map(_as_text, messages))), tools)


def _as_text(message: Message) -> Message:
    if message.role == "tool":
        text = "".join(part.text for part in message.parts)
        response = f"<tool_response>\n{text}\n</tool_response>"
        return Message("user", (TextPart(response),), name=message.name)
    if message.tool_calls:
        calls = "\n".join(map(_write, message.tool_calls))
        parts = (*message.parts, TextPart("\n" if message.parts else ""), TextPart(calls))
        return evolve(message, parts=parts, tool_calls=())
    return message


def _write(call: ToolCall) -> str:
    name = json.dumps(call.name, ensure_ascii=False)
    arguments = call.arguments or "{}"
    return f'{OPENING}\n{{"name": {name}, "arguments": {arguments}}}\n{CLOSING}'


def _joined(messages: Iterable[Message]) -> Iterable[Message]:
    """Join user messages that follow each other: results of calls, and what the user says then."""
    last: Message | None = None
    for message in messages:
        if last is not None and last.role == message.role == "user":
            last = evolve(last, parts=(*last.parts, TextPart("\n"), *message.parts))
            continue
        if last is not None:
            yield last
        last = message
    if last is not None:
        yield last
