"""Where drafts come from: tokens that a sequence will probably have next.

An engine computes drafts in one step, together with the last token, and keeps those that are what
it draws at their places. A draw depends on the seed and the place alone, so drafts never change a
text: they only make it come in fewer steps.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import Protocol

COPY = "copy"
"""The name of :class:`CopySource` in settings."""

LONG, SHORT = 8, 3
"""Tokens at the end of a text that are looked up in what came before, the longer run first."""

MOST_INDEXED = 1 << 15
"""Places of each length that an index holds: about 6 MB together."""

MOST_READ = 2048
"""Tokens that are indexed in one step, about 3 ms: other sequences wait for that."""


class DraftSource(Protocol):
    """Proposes drafts for one sequence. It must be quick: it is asked before each step."""

    def propose(self, tokens: Seq[int], k: int) -> list[int]:
        """Return up to ``k`` tokens that probably follow ``tokens``; none if nothing is known.

        :param tokens: prompt and answer so far; those of the last call are their beginning.
        """
        ...


class CopySource:
    """Proposes what followed the last tokens where they occurred before: in the prompt, in the
    answer, or in a text that the client expects.

    A match goes on while it predicts right; then the latest place that the last :data:`LONG` tokens
    came from is taken, or the last :data:`SHORT`.

    :param prompt: of the sequence; the first call's tokens begin with it.
    :param prediction: what the answer will probably be.
    """

    def __init__(self, prompt: Seq[int], prediction: Seq[int] = ()) -> None:
        self._history = [*prompt, *prediction]
        self._read = len(prompt)
        self._indexed = max(len(self._history) - MOST_INDEXED, LONG)
        self._at: int | None = len(prompt) if prediction else None
        self._places: dict[int, dict[int, int]] = {LONG: {}, SHORT: {}}

    def propose(self, tokens: Seq[int], k: int) -> list[int]:
        """Return what followed the last tokens before."""
        for token in tokens[self._read :]:
            if self._at is not None:
                self._at = self._at + 1 if self._history[self._at] == token else None
            self._history.append(token)
        self._read = len(tokens)
        self._index()
        if self._at is None:
            self._at = self._find()
        return [] if self._at is None else self._history[self._at : self._at + k]

    def _index(self) -> None:
        """Note for the runs before each new token that it followed them."""
        end = min(self._indexed + MOST_READ, len(self._history))
        for length, places in self._places.items():
            for place in range(max(self._indexed, length), end):
                key = hash(tuple(self._history[place - length : place]))
                places.pop(key, None)  # so that the places used last are the last in order
                places[key] = place
            while len(places) > MOST_INDEXED:
                del places[next(iter(places))]
        self._indexed = max(self._indexed, end)

    def _find(self) -> int | None:
        for length, places in self._places.items():
            place = places.get(hash(tuple(self._history[-length:])))
            if place is not None:
                return place
        return None
