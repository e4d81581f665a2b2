"""Tokens to text, incrementally: bytes of a character may arrive in several tokens."""

from __future__ import annotations

import codecs
from collections.abc import Collection

from lmx_kernel.engine.protocol import Tokenizer


class Detokenizer:
    """Turns one candidate's tokens into text.

    :param strip_space: drop one space at the very start, which some vocabularies put before the
        first word of a reply.
    :param shown: texts of control tokens that are not hidden.
    :ivar shown: the control tokens with these texts.
    """

    def __init__(
        self, tokenizer: Tokenizer, *, strip_space: bool, shown: Collection[str] = ()
    ) -> None:
        self._pieces = tokenizer.token_bytes
        marks = {mark.encode() for mark in shown}
        self.shown = frozenset(
            token for token in tokenizer.special_ids if marks and self._pieces[token] in marks
        )
        self._hidden = tokenizer.special_ids
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._at_start = strip_space

    def feed(self, token: int) -> str:
        """Return the text that ``token`` completes; empty within a character."""
        if token in self._hidden and token not in self.shown:
            return ""
        return self._begin(self._decoder.decode(self._pieces[token]))

    def flush(self) -> str:
        """Return what is left at the end; a cut character becomes U+FFFD."""
        return self._begin(self._decoder.decode(b"", final=True))

    def _begin(self, text: str) -> str:
        if self._at_start and text:
            self._at_start = False
            return text.removeprefix(" ")
        return text
