"""Reading an answer while it is generated: straight code that waits where the text ends.

A grammar is a generator over a :class:`Reader`. It yields pieces, and None where it needs more
text; so what it reads does not depend on where the text was cut.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import TypeVar

from lmx_kernel.text.formats.protocol import CallStarted, Piece, Text
from lmx_kernel.text.stops import overlap

T = TypeVar("T")
Reading = Generator[Piece | None, None, T]
SPACE = " \t\r\n"


class BrokenCallError(Exception):
    """What looked like a call is none. Never leaves a parser."""


class Reader:
    """The text of an answer that is not read yet.

    :ivar is_over: no more text comes.
    :ivar is_thinking: set by the grammar while it reads reasoning.
    """

    def __init__(self) -> None:
        self.is_over = False
        self.is_thinking = False
        self._text = ""
        self._at = 0
        self._noted: list[str] | None = None

    @property
    def ahead(self) -> str:
        """All text that came and is not read yet."""
        return self._text[self._at :]

    def add(self, text: str) -> None:
        """Append text to what can be read."""
        self._text, self._at = self.ahead + text, 0

    def take(self, count: int) -> str:
        """Read so many characters of what is ahead."""
        taken = self._text[self._at : self._at + count]
        self._at += len(taken)
        if self._noted is not None:
            self._noted.append(taken)
        return taken

    def more(self) -> Reading[bool]:
        """Wait for more text; False if none comes."""
        if self.is_over:
            return False
        yield None
        return True

    def peek(self) -> Reading[str]:
        """Return the next character, unread; "" at the end."""
        while self._at >= len(self._text):
            if not (yield from self.more()):
                return ""
        return self._text[self._at]

    def take_while(self, is_wanted: Callable[[str], bool]) -> Reading[str]:
        """Read characters as long as they are wanted."""
        taken = ""
        while (char := (yield from self.peek())) and is_wanted(char):
            taken += self.take(1)
        return taken

    def skip(self, chars: str = SPACE) -> Reading[str]:
        """Read white space, or other characters."""
        return (yield from self.take_while(chars.__contains__))

    def starts(self, text: str) -> Reading[bool]:
        """Read ``text`` if it is what comes next."""
        while True:
            ahead = self._text[self._at : self._at + len(text)]
            if ahead == text:
                self.take(len(text))
                return True
            if not text.startswith(ahead) or not (yield from self.more()):
                return False

    def drop(self, text: str) -> Reading[None]:
        """Read ``text`` if it is what comes next, or as much of it as an answer ends with."""
        if not (yield from self.starts(text)) and self.is_over and text.startswith(self.ahead):
            self.take(len(self.ahead))

    def expect(self, text: str) -> Reading[None]:
        """Read ``text``.

        :raises BrokenCallError: something else comes.
        """
        if not (yield from self.starts(text)):
            raise BrokenCallError

    def upto(self, *marks: str, limit: int = 256) -> Reading[tuple[str, str]]:
        """Read until the first of ``marks``; return what stood before it, and the mark.

        :raises BrokenCallError: none within ``limit`` characters.
        """
        while True:
            ahead = self.ahead
            at, mark = _first(ahead, marks)
            if mark and at <= limit:
                self.take(at + len(mark))
                return ahead[:at], mark
            if at > limit or not (yield from self.more()):
                raise BrokenCallError

    def until(
        self, marks: Sequence[str], make: Callable[[str], Piece], lead: str = "", *, trim: str = ""
    ) -> Reading[str]:
        """Pass text on as pieces until the first of ``marks``; return it, or "" at the end.

        :param lead: goes before the first piece, unless a mark comes first.
        :param trim: characters that are dropped before the mark, and at the end.
        """
        while True:
            at, mark = _first(self.ahead, marks)
            at = len(self.ahead) if self.is_over and not mark else at
            if text := self.take(len(self.ahead[:at].rstrip(trim)) if trim else at):
                yield make(lead + text)
                lead = ""
            if mark:
                self.take(self.ahead.index(mark) + len(mark))
                return mark
            if not (yield from self.more()):
                self.take(len(self.ahead))
                if lead:
                    yield make(lead)
                return ""

    def call_or_text(self, call: Reading[None], opening: str) -> Reading[bool]:
        """Read a call; what breaks before it has a name is text. Return whether it was a call.

        :param opening: what was read of it already.
        """
        self._noted, started = [opening], False
        try:
            for piece in call:
                started = started or isinstance(piece, CallStarted)
                if started:
                    self._noted = None
                yield piece
        except BrokenCallError:
            if self._noted is not None:
                yield Text("".join(self._noted))
            elif self.is_over:
                self.take(len(self.ahead))
        self._noted = None
        return started


class ReadingParser:
    """A parser that follows a grammar; see :class:`~lmx_kernel.text.formats.Parser`."""

    def __init__(
        self, grammar: Callable[[Reader], Reading[object]], marks: Sequence[str] = ()
    ) -> None:
        self.marks = marks
        self._reader = Reader()
        self._pieces = grammar(self._reader)
        self._read()

    @property
    def is_thinking(self) -> bool:
        """Whether what comes next is reasoning."""
        return self._reader.is_thinking

    def feed(self, text: str) -> Iterable[Piece]:
        """Return what ``text`` completes."""
        self._reader.add(text)
        return self._read()

    def flush(self) -> Iterable[Piece]:
        """Return what was held back."""
        self._reader.is_over = True
        return self._read()

    def _read(self) -> list[Piece]:
        pieces = []
        for piece in self._pieces:
            if piece is None:
                break
            pieces.append(piece)
        return pieces


def _first(text: str, marks: Sequence[str]) -> tuple[int, str]:
    """Return where the first mark begins, and the mark; or where one may begin, and ""."""
    found = [(at, mark) for mark in marks if (at := text.find(mark)) >= 0]
    held = max((overlap(text, mark) for mark in marks), default=0)
    return min(found, default=(len(text) - held, ""))
