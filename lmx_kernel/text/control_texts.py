"""What a client sends, with the texts of control tokens broken up, so that they are read as text.

Where the text of a control token occurs in a message, a call, a tool or an option, a border is put
behind its first character. A border is made of random digits, which no client can guess and no
template changes. The rendered prompt is cut at the borders, and its pieces are encoded one by one:
no control token goes across a cut, and those that the template writes are left as they are.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Collection, Iterator
from typing import Any

from attrs import evolve

from lmx_kernel.engine.protocol import Tokenizer
from lmx_kernel.types import ChatPrompt, Message, TextPart, Tool, ToolCall

BORDER_DIGITS = 24
OPENING_CHARS = 3


def make_border() -> str:
    """Return a text that occurs nowhere."""
    return f"{secrets.randbelow(10**BORDER_DIGITS):0{BORDER_DIGITS}d}"


class ControlTexts:
    """Finds the texts of a vocabulary's control tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        pieces = (tokenizer.token_bytes[token] for token in tokenizer.special_ids)
        texts = {piece.decode("utf-8", errors="replace") for piece in pieces}
        self._texts = frozenset(text for text in texts if len(text) > 1)
        self._lengths = sorted({len(text) for text in self._texts}, reverse=True)
        openings = sorted({text[:OPENING_CHARS] for text in self._texts})
        self._opening = re.compile("|".join(map(re.escape, openings)) or r"(?!)")

    def may_occur(self, prompt: ChatPrompt) -> bool:
        """Return whether a prompt has anything that the text of a control token may begin with, or
        an escape, which may hide one.
        """
        search = self._opening.search
        return any("\\" in text or search(text) for text in _texts(prompt))

    def broken_up(
        self, prompt: ChatPrompt, border: str, spared: Collection[str] = ()
    ) -> ChatPrompt:
        """Return ``prompt`` with a border in each control token's text; itself if there is none.

        :param spared: texts that are left as they are where an assistant speaks.
        """
        breaker = _Breaker(self, border)
        sparing = _Breaker(self, border, frozenset(spared))
        broken = ChatPrompt(
            tuple(
                (sparing if message.role == "assistant" else breaker).message(message)
                for message in prompt.messages
            ),
            tuple(map(breaker.tool, prompt.tools)),
            breaker.value(prompt.options),
        )
        return prompt if broken == prompt else broken

    def break_up(self, text: str, border: str, spared: Collection[str] = ()) -> str:
        """Return ``text`` with a border behind the first character of each control token's text."""
        kept, start = [], 0
        found = self._opening.search(text)
        while found is not None:
            at = found.start()
            if self._at(text, at, spared):
                kept.append(text[start : at + 1])
                start = at + 1
            found = self._opening.search(text, at + 1)
        return border.join([*kept, text[start:]])

    def _at(self, text: str, at: int, spared: Collection[str]) -> bool:
        found = (text[at : at + length] for length in self._lengths)
        return any(one in self._texts and one not in spared for one in found)


class _Breaker:
    """Puts one border into everything that a prompt is made of."""

    def __init__(
        self, texts: ControlTexts, border: str, spared: frozenset[str] = frozenset()
    ) -> None:
        self._texts = texts
        self._border = border
        self._spared = spared

    def text(self, text: str) -> str:
        return self._texts.break_up(text, self._border, self._spared)

    def message(self, message: Message) -> Message:
        text = message.text  # the parts may make a control token's text together
        broken = self.text(text)
        return evolve(
            message,
            parts=message.parts if broken == text else (TextPart(broken),),
            tool_calls=tuple(map(self._call, message.tool_calls)),
            tool_call_id=self._optional(message.tool_call_id),
            name=self._optional(message.name),
            reasoning=self._optional(message.reasoning),
        )

    def tool(self, tool: Tool) -> Tool:
        return evolve(
            tool,
            name=self.text(tool.name),
            description=self.text(tool.description),
            parameters=self.value(tool.parameters),
        )

    def value(self, value: Any) -> Any:
        """Return a JSON value with borders in its texts and names."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.value(key): self.value(item) for key, item in value.items()}
        return [self.value(item) for item in value] if isinstance(value, list) else value

    def _optional(self, text: str | None) -> str | None:
        return None if text is None else self.text(text)

    def _call(self, call: ToolCall) -> ToolCall:
        arguments = self._arguments(call.arguments)
        return ToolCall(self.text(call.id), self.text(call.name), arguments)

    def _arguments(self, text: str) -> str:
        if "\\" in text:  # an escape may hide a control token's text, which the template would show
            try:
                value = json.loads(text)
                broken = self.value(value)
            except (ValueError, RecursionError):
                return self.text(text)
            if broken != value:
                return json.dumps(broken, ensure_ascii=False)
        return self.text(text)


def _texts(prompt: ChatPrompt) -> Iterator[str]:
    """Yield all that somebody wrote in a prompt."""
    for message in prompt.messages:
        yield message.text
        yield from filter(None, (message.tool_call_id, message.name, message.reasoning))
        for call in message.tool_calls:
            yield from (call.id, call.name, call.arguments)
    for tool in prompt.tools:
        yield from (tool.name, tool.description)
        yield from _texts_in(tool.parameters)
    yield from _texts_in(prompt.options)


def _texts_in(value: Any) -> Iterator[str]:
    """Yield the texts and names of a JSON value."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            waiting += [*item, *item.values()]
        elif isinstance(item, list):
            waiting += item
