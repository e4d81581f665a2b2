"""JSON between tags, as Hermes and Qwen models write it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from lmx_chat_formats import grammar
from lmx_chat_formats.family import FamilyFormat
from lmx_kernel.text.formats import CallSyntax
from lmx_kernel.text.formats.json_reader import read_calls
from lmx_kernel.text.formats.reader import SPACE, Reader, Reading
from lmx_kernel.types import Tool

OPENING, CLOSING = "<tool_call>", "</tool_call>"


class HermesFormat(FamilyFormat):
    """``<tool_call>{"name": "f", "arguments": {...}}</tool_call>``"""

    name = "hermes"
    signs: ClassVar[tuple[str, ...]] = (OPENING,)
    openings = (OPENING,)
    marks = (CLOSING,)

    def read_call(self, reader: Reader, mark: str, tools: Sequence[Tool]) -> Reading[None]:
        yield from reader.skip()
        yield from read_calls(reader)
        yield from reader.skip(SPACE + "}]")  # small models close more than they opened
        yield from reader.drop(CLOSING)

    def calls(self, tools: Sequence[Tool], *, parallel: bool) -> CallSyntax:
        call = f'call: "{OPENING}" "\\n" object "\\n" "{CLOSING}"\n'
        rules = grammar.repeated("call", r'"\n"', parallel=parallel)
        return CallSyntax(triggers=(OPENING,), grammar=rules + call + grammar.json_call(tools))
