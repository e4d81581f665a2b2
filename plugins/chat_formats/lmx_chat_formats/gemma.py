"""Calls as FunctionGemma and Gemma 4 write them: objects with bare keys and marked texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import ClassVar

import msgspec

from lmx_chat_formats import grammar, unquoted_arguments
from lmx_chat_formats.family import THINK, FamilyFormat
from lmx_chat_formats.mistral import is_of_name
from lmx_chat_formats.tagged_arguments import escaped
from lmx_kernel.text.formats import CallArguments, CallEnded, CallStarted, CallSyntax
from lmx_kernel.text.formats.json_reader import MAX_DEPTH
from lmx_kernel.text.formats.reader import BrokenCallError, Reader, Reading
from lmx_kernel.types import Tool


class GemmaFormat(FamilyFormat):
    """``<|tool_call>call:f{a:1,b:<|"|>text<|"|>}<tool_call|>``"""

    name = "gemma"
    opening: ClassVar = "<|tool_call>"
    closing: ClassVar = "<tool_call|>"
    quote: ClassVar = '<|"|>'
    signs: ClassVar = (opening,)
    reasoning_marks: ClassVar[tuple[tuple[str, str], ...]] = (("<|channel>thought", "<channel|>"),)
    openings = (opening,)
    marks: ClassVar[tuple[str, ...]] = (closing, quote, "<|channel>")

    def read_call(self, reader: Reader, mark: str, tools: Sequence[Tool]) -> Reading[None]:
        yield from reader.skip()
        yield from reader.expect("call:")
        name = yield from reader.take_while(is_of_name)
        if not name or (yield from reader.peek()) != "{":
            raise BrokenCallError
        yield CallStarted(name)
        yield from self._read_object(reader, 1)
        yield CallEnded()
        yield from reader.skip()
        yield from reader.drop(self.closing)

    def calls(self, tools: Sequence[Tool], *, parallel: bool) -> CallSyntax:
        opening, closing = grammar.literal(self.opening), grammar.literal(self.closing)
        call = f'call: {opening} "call:" named {closing}\n'
        rules = [
            f"{grammar.literal(tool.name)} arguments_{index}" for index, tool in enumerate(tools)
        ]
        named = grammar.choice("named", rules) + unquoted_arguments.arguments(tools, self.quote)
        calls = grammar.repeated("call", parallel=parallel)
        return CallSyntax(triggers=(self.opening,), grammar=calls + call + named)

    def _read_value(self, reader: Reader, depth: int) -> Reading[None]:
        if depth > MAX_DEPTH:
            raise BrokenCallError
        first = yield from reader.peek()
        if first == "{":
            yield from self._read_object(reader, depth + 1)
        elif first == "[":
            yield from self._read_list(reader, depth + 1)
        elif (yield from reader.starts(self.quote)):
            yield CallArguments('"')
            if not (yield from reader.until((self.quote,), escaped)):
                raise BrokenCallError
            yield CallArguments('"')
        else:
            word = yield from reader.take_while(lambda char: char not in ",}]")
            yield CallArguments(_scalar(word))

    def _read_object(self, reader: Reader, depth: int) -> Reading[None]:
        before = "{"
        yield from reader.expect("{")
        while not (yield from reader.starts("}")):
            if before != "{":
                yield from reader.expect(",")
            yield from reader.skip()
            is_marked = yield from reader.starts(self.quote)
            key, _ = yield from reader.upto(f"{self.quote}:" if is_marked else ":")
            yield CallArguments(f"{before}{json.dumps(key, ensure_ascii=False)}:")
            yield from self._read_value(reader, depth)
            before = ","
        yield CallArguments("{}" if before == "{" else "}")

    def _read_list(self, reader: Reader, depth: int) -> Reading[None]:
        before = "["
        yield from reader.expect("[")
        while not (yield from reader.starts("]")):
            if before != "[":
                yield from reader.expect(",")
                yield CallArguments(",")
            else:
                yield CallArguments("[")
            yield from self._read_value(reader, depth)
            before = ","
        yield CallArguments("[]" if before == "[" else "]")


class FunctionGemmaFormat(GemmaFormat):
    """``<start_function_call>call:f{a:1,b:<escape>text<escape>}<end_function_call>``"""

    name = "function_gemma"
    opening = "<start_function_call>"
    closing = "<end_function_call>"
    quote = "<escape>"
    signs: ClassVar = (opening,)
    reasoning_marks = (THINK,)
    openings = (opening,)
    marks: ClassVar = (closing, quote)


def _scalar(word: str) -> str:
    try:
        msgspec.json.decode(word)
    except (msgspec.DecodeError, UnicodeError):
        return json.dumps(word, ensure_ascii=False)
    return word.strip()
