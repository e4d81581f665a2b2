"""Chat formats: what a model's visible text means.

Models mark parts of their answers (a call, a thought) in ways of their own. A format is an entry
point in the group ``lmx.formats``; it is chosen by the model's chat template and its parser reads
the answer as it is written. Text that no format claims is plain.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.metadata import entry_points
from typing import Protocol

from attrs import frozen

from lmx_kernel.hookspecs import FORMAT_GROUP
from lmx_kernel.types import Tool


@frozen
class Text:
    """Visible text of the answer."""

    text: str


@frozen
class Thought:
    """More of what the model thinks before it speaks."""

    text: str


@frozen
class CallStarted:
    """The model begins to call a tool."""

    name: str


@frozen
class CallArguments:
    """More of the JSON text of the arguments of the call that began last."""

    text: str


@frozen
class CallEnded:
    """The call that began last is complete."""


Piece = Text | Thought | CallStarted | CallArguments | CallEnded


@frozen(kw_only=True)
class CallSyntax:
    """How calls are written, for a mask.

    :param trigger: the text (or control token) that nothing but a call begins with.
    :param grammar: Lark rules as the mask's library reads them, of which ``calls`` is one or more
        complete calls, from the trigger on.
    """

    trigger: str
    grammar: str


class Parser(Protocol):
    """Reads one candidate's text."""

    def feed(self, text: str) -> Iterable[Piece]:
        """Return what ``text`` completes, holding back what is not decided yet."""
        ...

    def flush(self) -> Iterable[Piece]:
        """Return what was held back, at the end."""
        ...


class Format(Protocol):
    """A chat format."""

    name: str

    def matches(self, template: str) -> bool:
        """Return whether a model with this chat template answers in this format."""
        ...

    def parser(self, prompt: str) -> Parser:
        """Return a parser for one candidate.

        :param prompt: the end of the prompt's text: a template may have opened a thought already.
        """
        ...

    def thought(self, prompt: str) -> tuple[str, str] | None:
        """Return the texts around the thought that an answer to ``prompt`` begins with ("" for an
        opening that the prompt holds already); None if the model does not think first.
        """
        ...

    def calls(self, tools: Sequence[Tool], *, parallel: bool) -> CallSyntax | None:
        """Return how ``tools`` are called, and one after the other if ``parallel``; None if this
        format has no calls.
        """
        ...


class PlainFormat:
    """Everything is text."""

    name = "plain"

    def matches(self, template: str) -> bool:
        return True

    def parser(self, prompt: str) -> Parser:
        return _PlainParser()

    def thought(self, prompt: str) -> tuple[str, str] | None:
        return None

    def calls(self, tools: Sequence[Tool], *, parallel: bool) -> CallSyntax | None:
        return None


class _PlainParser:
    def feed(self, text: str) -> Iterable[Piece]:
        return (Text(text),) if text else ()

    def flush(self) -> Iterable[Piece]:
        return ()


def find_format(template: str | None) -> Format:
    """Return the installed format that claims ``template``; the plain one if none does.

    Formats are asked in the order of their names, so the choice does not hang on installation.
    """
    for entry in sorted(entry_points(group=FORMAT_GROUP), key=lambda entry: entry.name):
        found: Format = entry.load()
        if template is not None and found.matches(template):
            return found
    return PlainFormat()
