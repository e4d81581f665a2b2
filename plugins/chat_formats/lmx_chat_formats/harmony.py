"""Messages in channels, as gpt-oss models write them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lmx_chat_formats import grammar
from lmx_chat_formats.family import FamilyFormat
from lmx_kernel.text.formats import CallEnded, CallStarted, CallSyntax, Parser, Reasoning, Text
from lmx_kernel.text.formats.json_reader import read_arguments
from lmx_kernel.text.formats.reader import BrokenCallError, Reader, Reading, ReadingParser
from lmx_kernel.types import Tool

START, CHANNEL, MESSAGE = "<|start|>", "<|channel|>", "<|message|>"
CONSTRAIN, CALL, END = "<|constrain|>", "<|call|>", "<|end|>"
ENDS = (END, CALL, START, CHANNEL)
ROLE, RECIPIENT_OPENING = "assistant", "to="
RECIPIENT = re.compile(r"to=functions\.([\w.:/@-]+)")


class HarmonyFormat(FamilyFormat):
    """``<|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…``; a
    call is a message in the channel ``commentary`` to ``functions.f``.
    """

    name = "harmony"
    signs = (CHANNEL, MESSAGE)

    def parser(self, prompt: str, tools: Sequence[Tool] = ()) -> Parser:
        marks = (START, CHANNEL, MESSAGE, CONSTRAIN, END)
        return ReadingParser(lambda reader: self.read(reader, prompt, tools), marks)

    def thought(self, prompt: str) -> tuple[str, str] | None:
        """Return the texts around a message in the channel ``analysis``."""
        if not _is_before_header(prompt):
            return None
        return f"{CHANNEL}analysis{MESSAGE}", f"{END}{START}{ROLE}"

    def header(self, prompt: str) -> str:
        """Return the header of a message to the user."""
        return f"{CHANNEL}final{MESSAGE}" if _is_before_header(prompt) else ""

    def read(self, reader: Reader, prompt: str, tools: Sequence[Tool]) -> Reading[None]:
        """Read message after message; what has no header is text."""
        mark = ""
        while True:
            header, lead = yield from _read_header(reader, mark)
            found = RECIPIENT.search(header)
            if found and tools:
                yield from reader.call_or_text(_read_call(reader, found[1]), "")
                mark = yield from reader.until(ENDS, Text)
            elif "analysis" in header:
                reader.is_thinking = True
                mark = yield from reader.until(ENDS, Reasoning)
                reader.is_thinking = False
            else:
                mark = yield from reader.until(ENDS, Text, lead)
            if not mark:
                return

    def calls(self, tools: Sequence[Tool], *, parallel: bool) -> CallSyntax:
        """Return the syntax of one call: the model ends its answer after it.

        The recipient stands before the channel or after it, so that a call shows no earlier.
        """
        tail = f'channel? " "? ("{CONSTRAIN}"? "json")? "{MESSAGE}"'
        rules = (
            f'calls: (channel? " ")? "{RECIPIENT_OPENING}functions" named\n'
            f'channel: "{CHANNEL}" ("commentary" | "analysis")\n'
        )
        return CallSyntax(
            triggers=(f"{RECIPIENT_OPENING}functions",),
            grammar=rules + grammar.named_call(tools, ".", tail),
        )


def _is_before_header(prompt: str) -> bool:
    return prompt.rstrip().endswith(f"{START}{ROLE}")


def _read_header(reader: Reader, mark: str) -> Reading[tuple[str, str]]:
    """Return a message's header, and white space that turned out to be text.

    :param mark: what ended the last message: it may begin this one.
    """
    lead = ""
    if mark != CHANNEL:
        if mark == START or (yield from reader.starts(START)):
            yield from reader.starts(ROLE)
        lead = yield from reader.skip(" ")
        mark = yield from _one_of(reader, RECIPIENT_OPENING, CHANNEL, MESSAGE)
    if mark in ("", MESSAGE):
        return "", "" if mark else lead
    try:
        header, _ = yield from reader.upto(MESSAGE)
    except BrokenCallError:
        return "", lead
    return mark + header, ""


def _one_of(reader: Reader, *texts: str) -> Reading[str]:
    for text in texts:
        if (yield from reader.starts(text)):
            return text
    return ""


def _read_call(reader: Reader, name: str) -> Reading[None]:
    yield CallStarted(name)
    yield from reader.skip()
    yield from read_arguments(reader)
    yield CallEnded()
    yield from reader.skip()
