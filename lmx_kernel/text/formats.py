"""Chat formats: what a model's visible text means.

Models mark parts of their answers (a call, a thought) in ways of their own. A format is an entry
point in the group ``lmx.formats``; it is chosen by the model's chat template and its parser reads
the answer as it is written. Text that no format claims is plain.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import entry_points
from typing import Protocol

from attrs import frozen

from lmx_kernel.hookspecs import FORMAT_GROUP


@frozen
class Text:
    """Visible text of the answer."""

    text: str


Piece = Text


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

    def parser(self) -> Parser:
        """Return a parser for one candidate."""
        ...


class PlainFormat:
    """Everything is text."""

    name = "plain"

    def matches(self, template: str) -> bool:
        return True

    def parser(self) -> Parser:
        return _PlainParser()


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
