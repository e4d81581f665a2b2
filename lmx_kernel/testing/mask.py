"""A mask with a script, for the tests of engines."""

from __future__ import annotations

import random
from collections.abc import Sequence as Seq
from typing import Any


class ScriptedMask:
    """Allows one set of tokens after the other; an empty set allows all, a set of one forces it.

    :ivar steps: the sets.
    :ivar accepted: the tokens that were accepted.
    """

    problem = ""
    is_complete = False

    def __init__(self, *steps: set[int]) -> None:
        self.steps = list(steps)
        self.accepted: list[int] = []

    def fill(self, row: Any) -> bool:
        """Allow the next set."""
        allowed = self._next()[:1]
        if not allowed or not allowed[0]:
            return False
        words = memoryview(row).cast("B").cast("I")
        for place in range(len(words)):
            words[place] = 0
        for token in allowed[0]:
            words[token // 32] |= 1 << token % 32
        return True

    def accept(self, tokens: Seq[int]) -> None:
        """Continue after ``tokens``."""
        self.accepted += tokens

    def forced(self) -> list[int]:
        """Return the tokens of all sets of one that come next."""
        forced: list[int] = []
        for step in self._next():
            if len(step) != 1:
                break
            forced += step
        return forced

    def _next(self) -> list[set[int]]:
        return self.steps[len(self.accepted) :]


def choices(seed: int, count: int, size: int = 4) -> list[set[int]]:
    """Return ``count`` sets of tokens between 3 and 300, at random."""
    dice = random.Random(seed)
    return [set(dice.sample(range(3, 300), size)) for _ in range(count)]
