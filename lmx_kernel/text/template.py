"""Chat templates: messages to prompt text.

A template comes with the model. The form in which it takes messages differs between models and is
written nowhere; so each is tried, once, with small conversations (see :class:`_Features`).
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
from lmx_kernel.text.meter import ExhaustedError, metered
from lmx_kernel.text.sandbox import RefusalError, Sandbox, render
from lmx_kernel.types import Message, TextPart, Tool, ToolCall

SHORT_ID_CHARS = 9
PROBE = "qzx"


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


@frozen(kw_only=True)
class _Features:
    """What a template supports.

    :ivar system: whether it writes system messages.
    :ivar parts: whether it takes content as a list of parts only.
    :ivar calls: the form in which it takes calls; None if it writes none.
    """

    system: bool
    parts: bool
    calls: CallStyle | None


class ChatTemplate:
    """A model's chat template, compiled once. May be called from any thread.

    :param source: Jinja source.
    :param texts: the texts of special tokens by the template's names for them, such as
        ``bos_token``.
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
        self._known_features: _Features | None = None
        self._knows_developer = "developer" in source

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] = (),
        options: Mapping[str, Any] | None = None,
        chat_format: Format | None = None,
    ) -> str:
        """Return the prompt text, ready for the assistant's turn.

        :param options: more names for the template; they replace none of the usual ones.
        :param chat_format: explains tools where the template does not, and knows the template's
            names for the options.
        :raises InvalidRequestError: the template refuses these messages, fails, or does not end.
        """
        names = options or {}
        try:
            with metered():
                messages = self._with_known_roles(messages)
                if chat_format is not None:
                    messages, tools = self._explained(messages, tools, chat_format)
                    names = chat_format.template_options(names)
                return self._render(messages, tools, names)
        except RefusalError as refusal:
            raise InvalidRequestError(
                f"the model's chat template refuses these messages: {_reason(refusal)}",
                param="messages",
            ) from refusal
        except Exception as error:  # foreign code fails in any way it likes
            raise InvalidRequestError(
                f"the model's chat template failed: {_reason(error)}", param="messages"
            ) from error

    def _explained(
        self, messages: Sequence[Message], tools: Sequence[Tool], chat_format: Format
    ) -> tuple[Sequence[Message], Sequence[Tool]]:
        """Return messages that explain the tools, and no tools, where the template does not."""
        uses_tools = tools or any(each.tool_calls or each.role == "tool" for each in messages)
        knows_tools = "tools" in self._names and self._features.calls is not None
        if uses_tools and (chat_format.explains_tools or not knows_tools):
            return chat_format.explain(messages, tools), ()
        return messages, tools

    def _with_known_roles(self, messages: Sequence[Message]) -> Sequence[Message]:
        return messages if self._knows_developer else list(map(_as_system, messages))

    def _render(
        self, messages: Sequence[Message], tools: Sequence[Tool], options: Mapping[str, Any]
    ) -> str:
        if messages and messages[0].role == "system" and not self._features.system:
            messages = _without_system(messages)
        style, as_parts = self._features.calls or CallStyle(), self._features.parts
        return self._write(list(_as_dicts(messages, style, as_parts=as_parts)), tools, options)

    def _write(
        self,
        messages: list[dict[str, Any]],
        tools: Sequence[Tool] = (),
        options: Mapping[str, Any] | None = None,
    ) -> str:
        names = {**(options or {}), **self._texts}
        names |= {"messages": messages, "add_generation_prompt": True}
        if tools:
            names["tools"] = list(map(_described, tools))
        return render(self._template, names)

    @property
    def _features(self) -> _Features:
        # functools.cached_property would let all threads wait for one that does not end
        if self._known_features is None:
            self._known_features = self._probe_features()
        return self._known_features

    def _probe_features(self) -> _Features:
        user = {"role": "user", "content": PROBE}
        typed = {"role": "user", "content": [{"type": "text", "text": PROBE}]}
        is_plain = PROBE in self._try([user])
        parts = not is_plain and PROBE in self._try([typed])
        system = {"role": "system", "content": PROBE}
        asked = {"role": "user", "content": "hi"}
        return _Features(
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
            written = self._try(list(_as_dicts(turns, style, as_parts=as_parts)), [tool])
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
    """Return messages whose first user message begins with the system message."""
    system, *rest = messages
    for index, message in enumerate(rest):
        if message.role == "user":
            parts = (*system.parts, TextPart("\n\n"), *message.parts)
            return [*rest[:index], evolve(message, parts=parts), *rest[index + 1 :]]
    return [evolve(system, role="user"), *rest]


def _as_dicts(
    messages: Iterable[Message], style: CallStyle, *, as_parts: bool
) -> Iterable[dict[str, Any]]:
    """Yield messages as dictionaries of the kind that templates are written for."""
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


def _content(message: Message, style: CallStyle, *, as_parts: bool) -> object:
    text = _text(message)
    if message.tool_calls and style.content_as_none and not text:
        return None
    return [{"type": "text", "text": part.text} for part in message.parts] if as_parts else text


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
    return names if _text(message) else names | {"thinking": message.reasoning}


def _text(message: Message) -> str:
    return "".join(part.text for part in message.parts)


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
