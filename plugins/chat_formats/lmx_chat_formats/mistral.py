"""Calls as Mistral models write them."""

from __future__ import annotations

from collections.abc import Sequence

from lmx_chat_formats import grammar
from lmx_chat_formats.family import THINK, FamilyFormat
from lmx_kernel.text.formats import CallEnded, CallStarted, CallSyntax
from lmx_kernel.text.formats.json_reader import read_arguments, read_calls
from lmx_kernel.text.formats.reader import BrokenCallError, Reader, Reading
from lmx_kernel.types import Tool

OPENING, ID, ARGUMENTS = "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"


class MistralFormat(FamilyFormat):
    """``[TOOL_CALLS][{"name": "f", "arguments": {...}}]``; newer models write
    ``[TOOL_CALLS]f[ARGS]{...}``.
    """

    name = "mistral"
    signs = (OPENING,)
    reasoning_marks = (("[THINK]", "[/THINK]"), THINK)
    openings = (OPENING,)
    marks = (ID, ARGUMENTS)

    def read_call(self, reader: Reader, mark: str, tools: Sequence[Tool]) -> Reading[None]:
        yield from reader.skip()
        if (yield from reader.peek()) in ("[", "{"):
            return (yield from read_calls(reader))
        name = yield from reader.take_while(is_of_name)
        if not name:
            raise BrokenCallError
        if (yield from reader.starts(ID)):
            yield from reader.upto(ARGUMENTS)
        else:
            yield from reader.starts(ARGUMENTS)
        yield from reader.skip()
        if (yield from reader.peek()) != "{":
            raise BrokenCallError
        yield CallStarted(name)
        yield from read_arguments(reader)
        yield CallEnded()

    def calls(self, tools: Sequence[Tool], *, parallel: bool) -> CallSyntax:
        if ARGUMENTS in self.template:
            between = f'("{ID}" ID)? "{ARGUMENTS}"'
            calls = grammar.repeated("call", parallel=parallel)
            rules = f'{calls}call: "{OPENING}" named\n{grammar.named_call(tools, "", between)}'
        else:
            some = 'object (", " object)*' if parallel else "object"
            calls = f'calls: "{OPENING}" " "? "[" {some} "]"\n'
            rules = calls + grammar.json_call(tools, tail=r'(", \"id\": \"" ID "\"")?')
        return CallSyntax(triggers=(OPENING,), grammar=f"{rules}ID: /[A-Za-z0-9]{{9}}/\n")


def is_of_name(char: str) -> bool:
    """Return whether a character may be in a function's name."""
    return char.isalnum() or char in "_-.:/@"
