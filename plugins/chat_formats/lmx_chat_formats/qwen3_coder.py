"""Tags for functions and parameters, as Qwen3-Coder models write them."""

from __future__ import annotations

import json
from collections.abc import Sequence

from lmx_chat_formats import grammar
from lmx_chat_formats.family import FamilyFormat
from lmx_chat_formats.hermes import CLOSING, OPENING
from lmx_chat_formats.tagged_arguments import ArgumentTypes, Tags, grammar_of, read_value
from lmx_kernel.text.formats import CallArguments, CallEnded, CallStarted, CallSyntax
from lmx_kernel.text.formats.reader import BrokenCallError, Reader, Reading
from lmx_kernel.types import Tool

FUNCTION, FUNCTION_END = "<function=", "</function>"
PARAMETER, PARAMETER_END = "<parameter=", "</parameter>"
TAGS = Tags(
    key=f'"{PARAMETER}"', value=r'">" "\n"', closing=PARAMETER_END, after=r'"\n"', lead="\n"
)


class Qwen3CoderFormat(FamilyFormat):
    """``<tool_call><function=f><parameter=a>1</parameter></function></tool_call>``"""

    name = "qwen3_coder"
    signs = (OPENING, FUNCTION)
    openings = (OPENING, FUNCTION)
    marks = (CLOSING,)

    def read_call(self, reader: Reader, mark: str, tools: Sequence[Tool]) -> Reading[None]:
        if mark == OPENING:
            yield from reader.skip()
            yield from reader.expect(FUNCTION)
        name, _ = yield from reader.upto(">")
        if not name:
            raise BrokenCallError
        yield CallStarted(name)
        types = ArgumentTypes.of(tools, name)
        before = "{"
        while True:
            yield from reader.skip()
            if not (yield from reader.starts(PARAMETER)):
                break
            key, _ = yield from reader.upto(">")
            yield CallArguments(f"{before}{json.dumps(key, ensure_ascii=False)}: ")
            yield from reader.starts("\n")
            yield from read_value(reader, types.get(key), f"\n{PARAMETER_END}", PARAMETER_END)
            before = ", "
        yield from reader.expect(FUNCTION_END)
        yield CallArguments("{}" if before == "{" else "}")
        yield CallEnded()
        yield from reader.skip()
        yield from reader.drop(CLOSING)

    def calls(self, tools: Sequence[Tool], *, parallel: bool) -> CallSyntax:
        rules = [
            f'{grammar.literal(f"{FUNCTION}{tool.name}>")} "\\n" arguments_{index}'
            for index, tool in enumerate(tools)
        ]
        named = grammar.choice("named", rules) + grammar_of(tools, TAGS)
        closing = f'"\\n" "{CLOSING}"'
        call = f'call: "{OPENING}" "\\n" body {closing} | body ({closing})?\n'
        body = f'body: named "{FUNCTION_END}"\n'
        calls = grammar.repeated("call", r'"\n"', parallel=parallel)
        return CallSyntax(triggers=(OPENING, FUNCTION), grammar=calls + call + body + named)
