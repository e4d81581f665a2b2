"""Continued prompts, as ``text_completion``, whole and in chunks."""

from __future__ import annotations

import codecs
from collections import defaultdict
from collections.abc import Sequence
from typing import ClassVar

from attrs import define, field

from lmx_kernel.dialect.collected import CollectedAnswer
from lmx_kernel.types import Logprobs, TokenLogprob
from lmx_openai_api.objects import CompletionChoice, CompletionLogprobs
from lmx_openai_api.rendering import JsonObject, NonText, finite


@define
class _Position:
    """Where in a choice's text the next token begins."""

    chars: int
    _decoder: codecs.IncrementalDecoder = field(
        factory=lambda: codecs.getincrementaldecoder("utf-8")("replace")
    )

    def advance(self, token: bytes) -> int:
        """Return where ``token`` begins, and move to its end."""
        begin = self.chars
        self.chars += len(self._decoder.decode(token))
        return begin


class CompletionRendering:
    """``text_completion``, whole and in chunks.

    :param echoes: the text to repeat before each choice's own; empty for none.
    """

    id_prefix = "cmpl-"
    kind = chunk_kind = "text_completion"
    head: ClassVar[JsonObject] = {}

    def __init__(self, *, with_logprobs: bool, echoes: Sequence[str] = ()) -> None:
        self._with_logprobs = with_logprobs
        self._echoes = echoes
        self._positions: defaultdict[int, _Position] = defaultdict(lambda: _Position(0))

    def opening(self, index: int) -> CompletionChoice | None:
        """Repeat the prompt, if that was asked for."""
        return _choice(index, self._echoes[index], None, None) if self._echoes else None

    def delta(self, index: int, text: str, logprobs: Sequence[Logprobs]) -> CompletionChoice:
        """Add text."""
        return _choice(index, text, None, self._logprobs(index, logprobs))

    def non_text(self, index: int, event: NonText) -> None:
        """Return None: a continued prompt has neither reasoning nor calls."""

    def finish(self, index: int, reason: str, logprobs: Sequence[Logprobs]) -> CompletionChoice:
        """End a choice."""
        return _choice(index, "", reason, self._logprobs(index, logprobs) if logprobs else None)

    def whole(self, index: int, answer: CollectedAnswer) -> CompletionChoice:
        """Return all of a choice."""
        echo = self._echoes[index] if self._echoes else ""
        logprobs = self._logprobs(index, answer.logprobs)
        return _choice(index, echo + answer.text, answer.reason, logprobs)

    def _logprobs(self, index: int, logprobs: Sequence[Logprobs]) -> CompletionLogprobs | None:
        if not self._with_logprobs:
            return None
        position = self._positions[index]
        return {
            "tokens": [_legacy_text(entry.chosen) for entry in logprobs],
            "token_logprobs": [finite(entry.chosen.logprob) for entry in logprobs],
            "top_logprobs": [_legacy_top(entry) for entry in logprobs],
            "text_offset": [position.advance(entry.chosen.text) for entry in logprobs],
        }


def _choice(
    index: int, text: str, reason: str | None, logprobs: CompletionLogprobs | None
) -> CompletionChoice:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}


def _legacy_text(token: TokenLogprob) -> str:
    """Name a token: pieces of a character get a name of their own, since names are keys here."""
    try:
        return token.text.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token.text)


def _legacy_top(entry: Logprobs) -> dict[str, float]:
    return {_legacy_text(token): finite(token.logprob) for token in (*entry.top, entry.chosen)}
