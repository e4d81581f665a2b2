"""The store of kept prefixes: which tokens are held in the cache for later, and by which slots.

Pure bookkeeping; the engine carries out what it answers. A prefix is found by its tokens alone,
and what a slot holds was computed from exactly these, so no text can leak into another.

Kept tokens slow every running row a little (15,000 foreign cells: +44 % a step, measured on
SmolLM2), so only few are kept: the newest always, since its conversation is likely to go on, the
others while all together stay within ``budget`` tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from attrs import define, field

Tokens = Sequence[int]
BLOCK = 256


@define
class PrefixStore:
    """Kept prefixes, the least recently used first.

    :param slots: that may hold one each.
    :param budget: of distinct tokens.
    """

    slots: range
    budget: int
    _kept: dict[int, list[int]] = field(factory=dict)

    def best(self, tokens: Tokens) -> tuple[int, int] | None:
        """Return the slot that shares most with the start of ``tokens``, and how much."""
        lengths = ((common(tokens, kept), slot) for slot, kept in self._kept.items())
        length, slot = max(lengths, default=(0, 0))
        return (slot, length) if length else None

    def touch(self, slot: int) -> None:
        """Note that a kept prefix was used."""
        self._kept[slot] = self._kept.pop(slot)

    def keep(self, tokens: list[int]) -> tuple[int | None, list[int]]:
        """Keep ``tokens``, if nothing kept begins with them.

        :returns: the slot to copy them into, or None; and slots to be emptied before that.
        """
        for slot, kept in self._kept.items():
            if common(tokens, kept) == len(tokens):
                self.touch(slot)
                return None, []
        dropped = [s for s, kept in self._kept.items() if common(tokens, kept) == len(kept)]
        for slot in dropped:
            del self._kept[slot]
        while self._kept and not self._has_room(tokens):
            dropped.append(self._drop_oldest())
        target = next(slot for slot in self.slots if slot not in self._kept)
        self._kept[target] = tokens
        return target, dropped

    def evict(self) -> int | None:
        """Forget the least recently used prefix and return its slot, or None if there is none."""
        return self._drop_oldest() if self._kept else None

    def tokens(self) -> list[list[int]]:
        """Return what is kept."""
        return list(self._kept.values())

    def _has_room(self, tokens: list[int]) -> bool:
        has_slot = len(self._kept) < len(self.slots)
        return has_slot and distinct([*self._kept.values(), tokens]) <= self.budget

    def _drop_oldest(self) -> int:
        slot = next(iter(self._kept))
        del self._kept[slot]
        return slot


def common(a: Tokens, b: Tokens) -> int:
    """Return how many tokens ``a`` and ``b`` share from the start.

    Compares slices of a block: many times faster than one by one.
    """
    limit = min(len(a), len(b))
    for start in range(0, limit, BLOCK):
        if a[start : start + BLOCK] != b[start : start + BLOCK]:
            block = range(start, min(start + BLOCK, limit))
            return next((i for i in block if a[i] != b[i]), limit)
    return limit


def distinct(sequences: Iterable[list[int]]) -> int:
    """Return the tokens of all sequences, those of shared prefixes counted once."""
    ordered = sorted(sequences)
    shared = sum(common(a, b) for a, b in pairwise(ordered))
    return sum(map(len, ordered)) - shared
