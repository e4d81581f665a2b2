"""Messages in channels, as gpt-oss models write them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lmx_chat_formats import grammar
from lmx_kernel.text.chat_format import ChatFormat
from lmx_kernel.text.formats import (
    CallEnded,
    CallStarted,
    CallSyntax,
    Parser,
    Text,
    Thought,
)
from lmx_kernel.text.json_reader import read_arguments
from lmx_kernel.text.reader import BrokenCallError, Reader, Reading, ReadingParser
from lmx_kernel.types import Tool

START, CHANNEL, MESSAGE = "<|start|>", "<|channel|>", "<|message|>"
CONSTRAIN, CALL, END = "<|constrain|>", "<|call|>", "<|end|>"
ENDS = (END, CALL, START, CHANNEL)
RECIPIENT = re.compile(r"to=functions\.([\w.-]+)")


class HarmonyFormat(ChatFormat):
    """``<|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…``; a
    call is a message in the channel ``commentary`` to ``functions.f``.
    """

    name = "harmony"
    signs = (CHANNEL, MESSAGE)
    thoughts = ((f"{CHANNEL}analysis{MESSAGE}", END),)

    def parser(self, prompt: str, tools: Sequence[Tool] = ()) -> Parser:
        marks = (START, CHANNEL, MESSAGE, CONSTRAIN, END)
        return ReadingParser(lambda reader: self.read(reader, prompt, tools), marks)

    def read(self, reader: Reader, prompt: str, tools: Sequence[Tool]) -> Reading[None]:
        """Read message after message; one without a header is text."""
        header = yield from self._read_header(reader)
        while header is not None:
            found = RECIPIENT.search(header)
            if found and tools:
                yield from reader.call_or_text(_read_call(reader, found[1]), "")
                mark = yield from reader.until(ENDS, _nothing)
            elif "analysis" in header or "to=" in header:
                reader.is_thinking = True
                mark = yield from reader.until(ENDS, Thought)
                reader.is_thinking = False
            else:
                mark = yield from reader.until(ENDS, Text)
            if not mark:
                return
            header = yield from self._read_header(reader)

    def _read_header(self, reader: Reader) -> Reading[str | None]:
        """Return what stands before a message's text; None at the end."""
        raise NotImplementedError

    def calls(self, tools: Sequence[Tool], *, parallel: bool) -> CallSyntax:
        """Return the syntax of one call: the model ends its answer after it."""
        names = grammar.named_call(tools, "", f'" " "{CONSTRAIN}" "json" "{MESSAGE}"')
        rules = f'calls: "{CHANNEL}" "commentary to=functions." named\n'
        return CallSyntax(trigger=f"{CHANNEL}commentary to=functions.", grammar=rules + names)
