"""Tags for keys and values, as GLM models write them."""

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

KEY, KEY_END = "<arg_key>", "</arg_key>"
VALUE, VALUE_END = "<arg_value>", "</arg_value>"
TAGS = Tags(
    key=f'"{KEY}"', value=f'"{KEY_END}" "\\n"? "{VALUE}"', closing=VALUE_END, after='"\\n"?'
)


class GlmFormat(FamilyFormat):
    """``<tool_call>f<arg_key>a</arg_key><arg_value>1</arg_value></tool_call>``"""

    name = "glm"
    signs = (OPENING, KEY)
    openings = (OPENING,)
    marks = (CLOSING, KEY, KEY_END, VALUE, VALUE_END)

    def read_call(self, reader: Reader, mark: str, tools: Sequence[Tool]) -> Reading[None]:
        yield from reader.skip()
        name = yield from reader.take_while(lambda char: not char.isspace() and char != "<")
        if not name:
            raise BrokenCallError
        yield from reader.skip()
        if (yield from reader.peek()) != "<":
            raise BrokenCallError
        yield CallStarted(name)
        types = ArgumentTypes.of(tools, name)
        before = "{"
        while (yield from reader.starts(KEY)):
            key, _ = yield from reader.upto(KEY_END)
            yield CallArguments(f"{before}{json.dumps(key.strip(), ensure_ascii=False)}: ")
            yield from reader.skip()
            yield from reader.expect(VALUE)
            yield from read_value(reader, types.get(key.strip()), VALUE_END)
            yield from reader.skip()
            before = ", "
        yield from reader.expect(CLOSING)
        yield CallArguments("{}" if before == "{" else "}")
        yield CallEnded()

    def calls(self, tools: Sequence[Tool], *, parallel: bool) -> CallSyntax:
        rules = [
            f'{grammar.literal(tool.name)} "\\n"? arguments_{index}'
            for index, tool in enumerate(tools)
        ]
        named = grammar.choice("named", rules) + grammar_of(tools, TAGS)
        calls = grammar.repeated("call", r'"\n"?', parallel=parallel)
        call = f'call: "{OPENING}" named "{CLOSING}"\n'
        return CallSyntax(triggers=(OPENING,), grammar=calls + call + named)
