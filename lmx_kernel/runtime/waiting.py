"""The candidates that wait for one model: a line for each caller and priority."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain

from lmx_kernel.runtime.answer import Candidate, LiveAnswer


class WaitingLines:
    """Keeps the order in which the candidates of a line came; who of their heads is next is decided
    by :mod:`.admission`. Lines make that independent of how many wait.
    """

    def __init__(self) -> None:
        self._lines: dict[object, deque[Candidate]] = {}

    def __iter__(self) -> Iterator[Candidate]:
        return chain.from_iterable(self._lines.values())

    def __bool__(self) -> bool:
        return bool(self._lines)

    @property
    def only(self) -> Candidate | None:
        """The candidate that waits, if it is the only one."""
        if len(self._lines) != 1:
            return None
        (line,) = self._lines.values()
        return line[0] if len(line) == 1 else None

    @property
    def lines(self) -> Iterable[Iterable[Candidate]]:
        """All lines; none is empty."""
        return self._lines.values()

    @property
    def heads(self) -> list[Candidate]:
        """The first candidate of each line."""
        return [line[0] for line in self._lines.values()]

    def of_caller(self, caller: str) -> set[LiveAnswer]:
        """Return the requests of a caller that have a candidate that waits."""
        return {one.answer for one in self if one.answer.request.caller == caller}

    def append(self, candidates: Iterable[Candidate]) -> None:
        """Put candidates to the ends of their lines."""
        for candidate in candidates:
            self._lines.setdefault(_line_of(candidate), deque()).append(candidate)

    def put_first(self, candidates: Iterable[Candidate]) -> None:
        """Put candidates to the heads of their lines, in their order."""
        for candidate in reversed([*candidates]):
            self._lines.setdefault(_line_of(candidate), deque()).appendleft(candidate)

    def remove(self, candidate: Candidate) -> None:
        """Take out a candidate."""
        key = _line_of(candidate)
        self._lines[key].remove(candidate)
        if not self._lines[key]:
            del self._lines[key]

    def remove_all(self, answer: LiveAnswer) -> None:
        """Take out the candidates of a request that wait."""
        for candidate in answer.resume.unfinished:
            if candidate in self._lines.get(_line_of(candidate), ()):
                self.remove(candidate)


def _line_of(candidate: Candidate) -> object:
    request = candidate.answer.request
    return request.caller, request.priority
