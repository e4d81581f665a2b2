"""Chat templates: messages to prompt text.

A template comes with the model. What it wants to be given differs from family to family and is
written nowhere; so each is tried, once, with small conversations (see :class:`_Habits`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

from attrs import evolve, frozen
from jinja2 import meta

from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.text.formats.protocol import Format
from lmx_kernel.text.sandbox import ExhaustedError, RefusalError, Sandbox, metered, render
from lmx_kernel.types import Message, TextPart, Tool, ToolCall

SHORT_ID_CHARS = 9
PROBE = "qzx"


@frozen(kw_only=True)
class CallStyle:
    """How a template wants to be given the calls of an assistant.

    :ivar arguments_as_text: as JSON text, not as an object.
    :ivar content_as_none: a message without text has no content, not an empty one.
    :ivar short_ids: ids have nine letters and digits.
    """

    arguments_as_text: bool = False
    content_as_none: bool = False
    short_ids: bool = False


@frozen(kw_only=True)
class _Habits:
    """What a template takes.

    :ivar system: whether it knows a message of the system.
    :ivar parts: whether it wants content as a list of parts.
    :ivar calls: how it wants calls; None if it knows nothing of them.
    """

    system: bool
    parts: bool
    calls: CallStyle | None


class ChatTemplate:
    """A model's chat template, compiled once. May be called from any thread.

    :param source: Jinja source.
    :param texts: what the template may say for special tokens, such as ``bos_token``.
    :raises InvalidRequestError: the source does not compile.
    """

    def __init__(self, source: str, texts: Mapping[str, str]) -> None:
        sandbox = Sandbox()
        try:
            self._template = sandbox.compiled(source)
            self._names = meta.find_undeclared_variables(sandbox.parse(source))
        except Exception as error:  # the compiler was not made for foreign code
            raise InvalidRequestError(
                f"the model's chat template is broken: {_reason(error)}", param="messages"
            ) from error
        self._texts = texts
        self._known_habits: _Habits | None = None
        self._knows_developer = "developer" in source

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] = (),
        options: Mapping[str, Any] | None = None,
        chat_format: Format | None = None,
    ) -> str:
        """Return the prompt text, ready for the assistant's turn.

        :param options: more names for the template; those that it gets anyway are not replaced.
        :param chat_format: explains tools where the template does not.
        :raises InvalidRequestError: the template refuses these messages, fails, or does not end.
        """
        try:
            with metered():
                return self._render(*self._told(messages, tools, chat_format), options or {})
        except RefusalError as refusal:
            raise InvalidRequestError(
                f"the model's chat template refuses these messages: {_reason(refusal)}",
                param="messages",
            ) from refusal
        except Exception as error:  # foreign code fails in any way it likes
            raise InvalidRequestError(
                f"the model's chat template failed: {_reason(error)}", param="messages"
            ) from error

    def _told(
        self, messages: Sequence[Message], tools: Sequence[Tool], chat_format: Format | None
    ) -> tuple[Sequence[Message], Sequence[Tool]]:
        """Return messages and tools as the template can take them."""
        if not self._knows_developer:
            messages = [_as_system(message) for message in messages]
        uses_tools = any(message.tool_calls or message.role == "tool" for message in messages)
        knows_tools = "tools" in self._names and self._habits.calls is not None
        if (
            chat_format is not None
            and (tools or uses_tools)
            and (chat_format.explains_tools or not knows_tools)
        ):
            messages, tools = chat_format.explain(messages, tools), ()
        if messages and messages[0].role == "system" and not self._habits.system:
            messages = _without_system(messages)
        return messages, tools

    def _render(
        self, messages: Sequence[Message], tools: Sequence[Tool], options: Mapping[str, Any]
    ) -> str:
        style = self._habits.calls or CallStyle()
        as_parts = self._habits.parts
        return self._write(list(_plain(messages, style, as_parts=as_parts)), tools, options)

    def _write(
        self,
        messages: list[dict[str, Any]],
        tools: Sequence[Tool] = (),
        options: Mapping[str, Any] | None = None,
    ) -> str:
        names = dict(options or {})
        if "enable_thinking" in names:  # what two families call the same
            names.setdefault("thinking", names["enable_thinking"])
        names |= self._texts
        names |= {"messages": messages, "add_generation_prompt": True}
        if tools:
            names["tools"] = list(map(_described, tools))
        return render(self._template, names)

    @property
    def _habits(self) -> _Habits:
        # functools.cached_property would let all threads wait for one that does not end
        if self._known_habits is None:
            self._known_habits = self._find_habits()
        return self._known_habits

    def _find_habits(self) -> _Habits:
        user = {"role": "user", "content": PROBE}
        typed = {"role": "user", "content": [{"type": "text", "text": PROBE}]}
        is_plain = PROBE in self._try([user])
        parts = not is_plain and PROBE in self._try([typed])
        system = {"role": "system", "content": PROBE}
        asked = {"role": "user", "content": "hi"}
        return _Habits(
            system=parts or PROBE in self._try([system, asked]),
            parts=parts,
            calls=self._call_style(parts),
        )

    def _call_style(self, as_parts: bool) -> CallStyle | None:
        """Return the first style in which a call comes out whole."""
        for short, none, text in product((False, True), repeat=3):
            style = CallStyle(arguments_as_text=text, content_as_none=none, short_ids=short)
            call = ToolCall("call_0", "call", json.dumps({PROBE: 1}))
            turns = [
                Message("user", (TextPart("hi"),)),
                Message("assistant", (), tool_calls=(call,)),
                Message("tool", (TextPart("done"),), tool_call_id=call.id),
            ]
            tool = Tool(name="other")
            written = self._try(list(_plain(turns, style, as_parts=as_parts)), [tool])
            is_python = f"'{PROBE}'" in written  # an object where a text was wanted
            is_escaped = f'\\"{PROBE}' in written  # a text where an object was wanted
            if PROBE in written and not (is_python or is_escaped):
                return style
        return None

    def _try(self, messages: list[dict[str, Any]], tools: Sequence[Tool] = ()) -> str:
        """Return what comes of a conversation; "" if the template does not take it."""
        try:
            return self._write(messages, tools)
        except ExhaustedError:
            raise
        except Exception:  # noqa: BLE001 - the answer is no, whatever it says
            return ""


def _as_system(message: Message) -> Message:
    return evolve(message, role="system") if message.role == "developer" else message


def _without_system(messages: Sequence[Message]) -> Sequence[Message]:
    """Return messages of which the first of the user begins with the system's."""
    system, *rest = messages
    for index, message in enumerate(rest):
        if message.role == "user":
            parts = (*system.parts, TextPart("\n\n"), *message.parts)
            return [*rest[:index], evolve(message, parts=parts), *rest[index + 1 :]]
    return [evolve(system, role="user"), *rest]


def _plain(
    messages: Iterable[Message], style: CallStyle, *, as_parts: bool
) -> Iterable[dict[str, Any]]:
    """Yield messages as dictionaries of the kind that templates are written for."""
    called: dict[str, str] = {}
    for message in messages:
        called |= {call.id: call.name for call in message.tool_calls}
        text = "".join(part.text for part in message.parts)
        plain: dict[str, Any] = {"role": message.role, "content": text}
        if as_parts:
            plain["content"] = [{"type": "text", "text": part.text} for part in message.parts]
        if message.tool_calls:
            plain["tool_calls"] = [_called(call, style) for call in message.tool_calls]
            if style.content_as_none and not text:
                plain["content"] = None
        if message.role == "tool":
            known = message.tool_call_id or ""
            plain["tool_call_id"] = _id(known, style)
            plain["name"] = message.name or called.get(known, "")
        elif message.name is not None:
            plain["name"] = message.name
        if message.reasoning:
            plain["reasoning_content"] = message.reasoning
            if not text:
                plain["thinking"] = message.reasoning
        yield plain


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


def _described(tool: Tool) -> dict[str, Any]:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters or {"type": "object", "properties": {}},
    }
    return {"type": "function", "function": function}


def _reason(error: Exception) -> str:
    return str(error)[:300] or type(error).__name__
