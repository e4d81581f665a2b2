"""Calls as DeepSeek V3, V3.1 and R1 write them."""

from __future__ import annotations

from collections.abc import Sequence

from lmx_chat_formats import grammar
from lmx_chat_formats.family import FamilyFormat
from lmx_kernel.text.formats import CallEnded, CallStarted, CallSyntax
from lmx_kernel.text.formats.explanation import introduce
from lmx_kernel.text.formats.json_reader import read_arguments
from lmx_kernel.text.formats.reader import BrokenCallError, Reader, Reading
from lmx_kernel.types import Message, Tool

ALL, ALL_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"  # noqa: RUF001 - the family's own signs
ONE, ONE_END = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"  # noqa: RUF001
SEPARATOR = "<｜tool▁sep｜>"  # noqa: RUF001
FENCE = "```"


class DeepSeekFormat(FamilyFormat):
    """Marks around ``f<sep>{...}``; older models write ``function<sep>f`` and a fenced block."""

    name = "deepseek"
    signs = (ALL,)
    openings = (ALL, ONE)
    marks = (ALL_END, ONE_END, SEPARATOR)

    def read_call(self, reader: Reader, mark: str, tools: Sequence[Tool]) -> Reading[None]:
        yield from reader.skip()
        if mark == ALL:
            yield from reader.expect(ONE)
        name, _ = yield from reader.upto(SEPARATOR)
        if (yield from reader.peek()) != "{":
            name, _ = yield from reader.upto("\n")
            yield from reader.skip()
            yield from reader.expect(f"{FENCE}json")
            yield from reader.skip()
        if not name.strip():
            raise BrokenCallError
        yield CallStarted(name.strip())
        yield from read_arguments(reader)
        yield CallEnded()
        yield from reader.skip()
        yield from reader.drop(FENCE)
        yield from reader.drop(ONE_END)
        yield from reader.skip()
        yield from reader.drop(ALL_END)

    def calls(self, tools: Sequence[Tool], *, parallel: bool) -> CallSyntax:
        if self._is_fenced:
            before = f'"{ONE}" "function" "{SEPARATOR}" '
            names = grammar.named_call(tools, "", f'"\\n{FENCE}json\\n"')
            call = f'call: {before} named "\\n{FENCE}" "{ONE_END}"\n'
        else:
            names = grammar.named_call(tools, "", f'"{SEPARATOR}"')
            call = f'call: "{ONE}" named "{ONE_END}"\n'
        some = 'some: call ("\\n"? call)*\n' if parallel else "some: call\n"
        rules = f'calls: "{ALL}" some "{ALL_END}" | some "{ALL_END}"?\n'
        return CallSyntax(triggers=(ALL, ONE), grammar=rules + some + call + names)

    def explain(self, messages: Sequence[Message], tools: Sequence[Tool]) -> Sequence[Message]:
        """Return ``messages`` with an introduction: the templates list no tools."""
        arguments = '{"an argument": "its value"}'
        call = f"the name{SEPARATOR}{arguments}"
        if self._is_fenced:
            call = f"function{SEPARATOR}the name\n{FENCE}json\n{arguments}\n{FENCE}"
        return introduce(messages, tools, f"{ALL}{ONE}{call}{ONE_END}{ALL_END}")

    @property
    def _is_fenced(self) -> bool:
        return f"{FENCE}json" in self.template
