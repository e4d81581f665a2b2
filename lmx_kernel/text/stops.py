"""Stop texts: the answer ends before the first of them, wherever the tokens were cut."""

from __future__ import annotations

from collections.abc import Sequence


class StopScanner:
    """Passes text through and holds back what may be the beginning of a stop text.

    :ivar hit: the stop text that was met; "" for none yet.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.hit = ""

    @property
    def has_any(self) -> bool:
        """Whether there is any stop text."""
        return bool(self._stops)

    def feed(self, text: str) -> str:
        """Return the text that is safe to show; sets ``hit`` when a stop text is complete."""
        if not self._stops or not text:
            return text
        pending = self._held + text
        found = [(at, stop) for stop in self._stops if (at := pending.find(stop)) >= 0]
        if found:
            (at, self.hit), self._held = min(found), ""
            return pending[:at]
        keep = max(overlap(pending, stop) for stop in self._stops)
        self._held = pending[len(pending) - keep :]
        return pending[: len(pending) - keep]

    def flush(self) -> str:
        """Return what was held back, at the end of an answer that met no stop text."""
        held, self._held = self._held, ""
        return held


def overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of ``text`` may be the beginning of ``stop``."""
    longest = min(len(text), len(stop) - 1)
    if longest < 1 or text.find(stop[0], len(text) - longest) < 0:
        return 0
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
