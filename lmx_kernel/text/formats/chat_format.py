"""A base for chat formats: reasoning first, then text and calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from lmx_kernel.text.formats.explanation import introduce
from lmx_kernel.text.formats.json_reader import read_calls
from lmx_kernel.text.formats.protocol import CallSyntax, Parser, Reasoning, Text
from lmx_kernel.text.formats.reader import SPACE, Reader, Reading, ReadingParser
from lmx_kernel.types import Message, Tool


class ChatFormat:
    """A format whose calls begin with a mark. A subclass declares the marks and reads the calls.

    :cvar name: of its entry point.
    :cvar signs: texts that are all in the chat template of a model of this format.
    :cvar reasoning_marks: openings and closings of reasoning; none if models do not reason.
    :cvar openings: marks that a call begins with.
    :cvar marks: all control tokens of calls, where a vocabulary has them as such.
    :cvar between: characters that are dropped after a call.
    :cvar has_bare_calls: whether an answer may be a call without any mark: a JSON object.
    :cvar explains_tools: see :class:`~lmx_kernel.text.formats.Format`.
    :cvar example: a call, for models whose template does not write tools; "" explains none.
    """

    name: ClassVar[str]
    signs: ClassVar[tuple[str, ...]] = ()
    reasoning_marks: ClassVar[tuple[tuple[str, str], ...]] = ()
    openings: ClassVar[tuple[str, ...]] = ()
    marks: ClassVar[tuple[str, ...]] = ()
    between: ClassVar[str] = SPACE
    has_bare_calls: ClassVar[bool] = False
    explains_tools: ClassVar[bool] = False
    example: ClassVar[str] = ""

    def __init__(self, template: str) -> None:
        self.template = template

    @classmethod
    def matches(cls, template: str) -> int:
        """Return how many signs the template has, if it has all, and one more."""
        return 1 + len(cls.signs) if all(sign in template for sign in cls.signs) else 0

    def parser(self, prompt: str, tools: Sequence[Tool] = ()) -> Parser:
        """Return a parser for one candidate."""
        marks = [mark for pair in self.reasoning_marks for mark in pair]
        marks += [*self.openings, *self.marks] if tools else []
        return ReadingParser(lambda reader: self.read(reader, prompt, tools), marks)

    def thought(self, prompt: str) -> tuple[str, str] | None:
        """Return the texts around the reasoning that an answer may begin with."""
        end = prompt.rstrip()
        for opening, closing in self.reasoning_marks:
            if end.endswith(opening):
                return "", closing
            if opening in self.template and not end.endswith(closing):
                return opening, closing
        return None

    def header(self, prompt: str) -> str:
        """Return what stands before the text of an answer."""
        return ""

    def calls(self, tools: Sequence[Tool], *, parallel: bool) -> CallSyntax | None:
        """Return how ``tools`` are called; None if the format has no grammar for it."""
        return None

    def explain(self, messages: Sequence[Message], tools: Sequence[Tool]) -> Sequence[Message]:
        """Return ``messages`` with an introduction of the tools, if there is an example."""
        return introduce(messages, tools, self.example) if self.example else messages

    def template_options(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return ``options`` as they are."""
        return options

    def read(self, reader: Reader, prompt: str, tools: Sequence[Tool]) -> Reading[None]:
        """Read a whole answer."""
        lead = yield from self._read_reasoning(reader, prompt)
        may_be_bare = self.has_bare_calls and bool(tools)
        while True:
            if may_be_bare and (yield from reader.peek()) in ("{", "["):
                call, opening = read_calls(reader, {tool.name for tool in tools}), lead
            else:
                mark = yield from reader.until(self.openings if tools else (), Text, lead)
                if not mark:
                    return
                call, opening = self.read_call(reader, mark, tools), mark
            was_call = yield from reader.call_or_text(call, opening)
            lead = yield from reader.skip(self.between if was_call else SPACE)
            lead = "" if was_call else lead
            may_be_bare = was_call and self.has_bare_calls

    def read_call(self, reader: Reader, mark: str, tools: Sequence[Tool]) -> Reading[None]:
        """Read a call, or several, after the mark that opened it.

        :raises BrokenCallError: it is none.
        """
        raise NotImplementedError

    def _read_reasoning(self, reader: Reader, prompt: str) -> Reading[str]:
        """Read the reasoning, if there is any; return white space that belongs to the text."""
        end = prompt.rstrip()
        closing = next((pair[1] for pair in self.reasoning_marks if end.endswith(pair[0])), "")
        reader.is_thinking = bool(closing)
        lead = yield from reader.skip()
        for pair in self.reasoning_marks:
            if (yield from reader.starts(pair[0])):
                closing = pair[1]
                break
        if not closing:
            return lead
        reader.is_thinking = True
        yield from reader.skip()
        yield from reader.until((closing,), Reasoning, trim=SPACE)
        reader.is_thinking = False
        yield from reader.skip()
        return ""
