"""The store of kept prefixes: what earlier sequences computed, for later ones to begin with.

Pure bookkeeping; the engine carries it out. A prefix is found by its tokens, and what is held for
it was computed from exactly these, so no text can leak into another. It is found within its cache
space only, so nobody can tell what others have sent. The budget is one for all spaces.

A prefix is hot while a slot of the cache holds it: sharing it is free then, but every row that is
computed reads past it (measured on SmolLM2-135M: 4,000 foreign cells double the cost of a prompt's
row). So one that was not used for a while is parked: its state is copied to memory, at 20 ms for
1,200 tokens where computing them takes 4 s, and its cells are given back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from attrs import define, field

from lmx_kernel.engine.token_runs import common


@define(eq=False)
class CachedPrefix:
    """A prefix: hot in ``slot``, or parked in ``state``.

    :param used: when it was last of use, on the engine's clock of computed rows.
    """

    tokens: list[int]
    space: str
    used: int
    slot: int | None = None
    state: memoryview | None = None


@define
class PrefixCache:
    """The prefixes of all cache spaces.

    :param slots: that may hold one each; where there are none, all are parked.
    :param budget_bytes: for parked states.
    :param cold_rows: rows that others compute before an idle prefix is parked.
    """

    slots: range
    budget_bytes: int
    cold_rows: int = 256
    _kept: list[CachedPrefix] = field(factory=list)

    def best(self, tokens: Sequence[int], space: str) -> tuple[int, CachedPrefix] | None:
        """Return the longest start of ``tokens`` that is kept, and where; hot before parked."""
        found = [
            (common(tokens, kept.tokens), kept.slot is not None, kept) for kept in self._in(space)
        ]
        length, _, kept = max(found, key=lambda item: item[:2], default=(0, False, None))
        return (length, kept) if kept is not None and length else None

    def keep(self, tokens: list[int], space: str, now: int) -> CachedPrefix | None:
        """Return a new prefix, hot, for ``tokens`` to be copied into; None if nothing is new.

        The caller has taken out the :meth:`redundant` ones, and freed a slot if it :attr:`is_full`.
        Without slots there are no hot ones: the caller parks it.
        """
        for kept in self._in(space):
            if common(tokens, kept.tokens) == len(tokens):
                kept.used = now
                return None
        taken = {kept.slot for kept in self._kept}
        slot = next((slot for slot in self.slots if slot not in taken), None)
        new = CachedPrefix(tokens, space, now, slot)
        self._kept.append(new)
        return new

    def forget(self, kept: CachedPrefix) -> None:
        """Take a prefix out; its slot is free."""
        self._kept.remove(kept)

    def park(self, kept: CachedPrefix, state: memoryview) -> None:
        """Note that ``state`` holds what the slot of ``kept`` did; the oldest states make room."""
        kept.slot, kept.state = None, state
        self._fit()

    def put(self, tokens: list[int], space: str, now: int, state: memoryview) -> bool:
        """Keep a prefix, parked; the oldest states make room. Returns whether it is kept."""
        if state.nbytes > self.budget_bytes:
            return False
        same = next((kept for kept in self._in(space) if kept.tokens == tokens), None)
        if same is not None:
            same.used = now
            return True
        self._kept.append(CachedPrefix(tokens, space, now, None, state))
        self._fit()
        return True

    def whole(self, tokens: Sequence[int], space: str) -> CachedPrefix | None:
        """Return the longest prefix that ``tokens`` begin with all of, and go on from."""
        return max(self.redundant(tokens, space), key=lambda k: len(k.tokens), default=None)

    def redundant(self, tokens: Sequence[int], space: str) -> list[CachedPrefix]:
        """Return the prefixes that ``tokens`` begin with."""
        return [
            kept
            for kept in self._in(space)
            if common(tokens, kept.tokens) == len(kept.tokens) < len(tokens)
        ]

    def cold(self, now: int) -> CachedPrefix | None:
        """Return a hot prefix that should be parked by now, or None."""
        oldest = self.oldest_hot()
        return oldest if oldest is not None and now - oldest.used > self.cold_rows else None

    def oldest_hot(self) -> CachedPrefix | None:
        """Return the hot prefix that was not used for longest, or None."""
        return min((kept for kept in self._kept if kept.slot is not None), key=_age, default=None)

    @property
    def is_full(self) -> bool:
        """Whether every slot holds a prefix."""
        return sum(kept.slot is not None for kept in self._kept) == len(self.slots)

    @property
    def parked_bytes(self) -> int:
        """What the parked states take."""
        return sum(kept.state.nbytes for kept in self._kept if kept.state is not None)

    def hot_tokens(self) -> list[tuple[str, list[int]]]:
        """Return what the cache holds, each with its space."""
        return [(kept.space, kept.tokens) for kept in self._kept if kept.slot is not None]

    def _fit(self) -> None:
        while self.parked_bytes > self.budget_bytes:
            self.forget(min((k for k in self._kept if k.state is not None), key=_age))

    def _in(self, space: str) -> list[CachedPrefix]:
        return [kept for kept in self._kept if kept.space == space]

    def __iter__(self) -> Iterator[CachedPrefix]:
        """Yield all prefixes; they may be forgotten meanwhile."""
        return iter(tuple(self._kept))

    def __len__(self) -> int:
        return len(self._kept)


def distinct(sequences: Iterable[tuple[str, list[int]]]) -> int:
    """Return the tokens of all sequences, those of prefixes that a space shares counted once.

    :param sequences: the space and the tokens of each.
    """
    ordered = sorted(sequences)
    shared = sum(common(a, b) for (one, a), (other, b) in pairwise(ordered) if one == other)
    return sum(len(tokens) for _, tokens in ordered) - shared


def _age(kept: CachedPrefix) -> int:
    return kept.used
