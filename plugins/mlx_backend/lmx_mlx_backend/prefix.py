"""The store of kept prefixes: what earlier sequences computed, for later ones to begin with.

A prefix is found by its tokens, and what is held for it was computed from exactly these, so no text
can leak into another. It is found within its cache space only, so nobody can tell what others have
sent. The budget is one for all spaces. Caches that can be trimmed serve every shorter prefix too;
those that cannot (recurrent layers, a sliding window that is full) serve only what goes on from
their end.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field

from lmx_kernel.engine.token_runs import common
from lmx_mlx_backend import caches
from lmx_mlx_backend.caches import Cache

LEAST_SHARED = 16
"""Tokens: to compute fewer costs less than to wait for them, or to copy a cache."""


@define(eq=False)
class CachedPrefix:
    """A prefix and its cache.

    :param parts: caches of consecutive tokens; more than one only of caches that can be joined.
    """

    tokens: list[int]
    space: str
    parts: list[Cache]
    is_trimmable: bool = field(init=False)
    size_bytes: int = field(init=False)

    @is_trimmable.default
    def _can_trim(self) -> bool:
        return caches.can_trim(self.parts[0])

    @size_bytes.default
    def _sum(self) -> int:
        return sum(map(caches.size_bytes, self.parts))

    def copy(self) -> Cache:
        """Return a cache of its own of all of it."""
        return caches.join(self.parts) if len(self.parts) > 1 else caches.copy(self.parts[0])

    def usable(self, tokens: Sequence[int]) -> int:
        """Return how many of ``tokens`` this can stand for; never all, the last is needed."""
        length = min(common(tokens, self.tokens), len(tokens) - 1)
        can_serve = self.is_trimmable or length == len(self.tokens)
        return length if can_serve and length >= LEAST_SHARED else 0


@define
class PrefixCache:
    """The prefixes of all cache spaces, the one that was not used for longest first.

    :param budget_bytes: for all of them.
    """

    budget_bytes: int
    _kept: list[CachedPrefix] = field(factory=list)

    def best(self, tokens: Sequence[int], space: str) -> int:
        """Return how many of ``tokens`` a kept prefix can stand for."""
        return max((kept.usable(tokens) for kept in self._in(space)), default=0)

    def take(self, tokens: Sequence[int], space: str) -> tuple[int, Cache] | None:
        """Return the longest prefix of ``tokens`` that is kept, and a cache of its own for it."""
        kept = max(self._in(space), key=lambda kept: kept.usable(tokens), default=None)
        length = kept.usable(tokens) if kept is not None else 0
        if kept is None or not length:
            return None
        self._kept.remove(kept)
        self._kept.append(kept)
        cache, surplus = kept.copy(), len(kept.tokens) - length
        if surplus:
            caches.trim(cache, surplus)
        return length, caches.compact(cache) if surplus > length else cache

    def keep(self, tokens: list[int], space: str, cache: Cache) -> None:
        """Keep ``cache``, which was computed from exactly ``tokens``; the oldest make room."""
        if self._find(tokens, space) is None:
            self._add(CachedPrefix(tokens, space, [cache]))

    def extend(self, tokens: list[int], space: str, start: int, cache: Cache) -> bool:
        """Keep a prefix of which ``cache`` has the tokens from ``start`` on, and others that are
        kept those before; return whether there is one now.

        What is kept is not copied: a long prefix comes in many such parts.
        """
        parts = self._parts(tokens[:start], space)
        if parts is None:
            return False
        self._add(CachedPrefix(tokens, space, [*parts, cache]))
        return self.best([*tokens, 0], space) == len(tokens)

    @property
    def size_bytes(self) -> int:
        """What the caches take."""
        return sum(kept.size_bytes for kept in self._kept)

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()

    def _parts(self, tokens: list[int], space: str) -> list[Cache] | None:
        """Return caches of exactly ``tokens``; None if they are not kept."""
        if not tokens:
            return []
        if (kept := self._find(tokens, space)) is not None:
            return kept.parts
        found = self.take([*tokens, 0], space)
        return [caches.compact(found[1])] if found and found[0] == len(tokens) else None

    def _add(self, new: CachedPrefix) -> None:
        if new.size_bytes > self.budget_bytes:
            return
        if new.is_trimmable:
            for kept in self._in(new.space):
                if common(new.tokens, kept.tokens) == len(kept.tokens):
                    self._kept.remove(kept)
        self._kept.append(new)
        while self.size_bytes > self.budget_bytes:
            self._kept.pop(0)

    def _find(self, tokens: list[int], space: str) -> CachedPrefix | None:
        return next((kept for kept in self._in(space) if kept.tokens == tokens), None)

    def _in(self, space: str) -> list[CachedPrefix]:
        return [kept for kept in self._kept if kept.space == space]

    def __len__(self) -> int:
        return len(self._kept)
