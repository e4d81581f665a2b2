"""JSON without tags, as Llama 3 models write it."""

from __future__ import annotations

from collections.abc import Sequence

from lmx_chat_formats import grammar
from lmx_chat_formats.family import FamilyFormat
from lmx_kernel.text.formats import CallSyntax
from lmx_kernel.text.formats.json_reader import read_calls
from lmx_kernel.text.formats.reader import SPACE, Reader, Reading
from lmx_kernel.types import Tool

OPENING = "<|python_tag|>"


class Llama3Format(FamilyFormat):
    """``{"name": "f", "parameters": {...}}``, after ``<|python_tag|>`` or without it."""

    name = "llama3"
    signs = ("<|start_header_id|>", "parameters")
    openings = (OPENING,)
    between = SPACE + ";,"
    has_bare_calls = True

    def read_call(self, reader: Reader, mark: str, tools: Sequence[Tool]) -> Reading[None]:
        yield from reader.skip()
        yield from read_calls(reader)

    def calls(self, tools: Sequence[Tool], *, parallel: bool) -> CallSyntax:
        calls = f'calls: "{OPENING}"? some\n'
        some = 'some: object ("; " object)*\n' if parallel else "some: object\n"
        rules = calls + some + grammar.json_call(tools, "parameters")
        return CallSyntax(triggers=(OPENING,), grammar=rules, bare=grammar.BARE)
