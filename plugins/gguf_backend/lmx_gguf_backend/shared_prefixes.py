"""Prefixes that sequences share: a new one begins with the longest of its cache space that the
context holds.

:class:`~lmx_gguf_backend.prefix.PrefixCache` decides what is kept; here it is carried out.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from contextlib import suppress

from attrs import define, field

from lmx_gguf_backend.compaction import Compaction
from lmx_gguf_backend.context import Context, Piece
from lmx_gguf_backend.prefix import CachedPrefix, PrefixCache, distinct
from lmx_gguf_backend.window import Window
from lmx_kernel.engine import STATE_TOKENS
from lmx_kernel.engine.numpy_sampler import Sampler
from lmx_kernel.engine.running import RunningSequence, RunningSet
from lmx_kernel.engine.token_runs import common

WORTH_WAITING = 32
"""A prompt waits for another that is being computed if it shares this many tokens more with it than
with anything that is complete."""

MANY_CELLS, LEAST_ROWS = 512, 4
"""While hot prefixes take so many cells, a step counts so much at least by the clock: small steps
read past them too. Fewer cost little, and cells that are given back early get tokens out of order,
which changes the last bits of what is computed from them."""

WORTH_KEEPING = 8
"""Tokens that a finished sequence must have for its cells to be kept."""


@define(eq=False, kw_only=True)
class SlotSequence(RunningSequence):
    """A sequence and its slot of the context.

    :ivar stop: tokens after which computing its prompt pauses, so that its state there can be kept;
        0 for nowhere.
    """

    slot: int
    sampler: Sampler
    stop: int = 0

    @property
    def is_decoding(self) -> bool:
        """Whether it waits for nothing but the token that was chosen and those forced with it."""
        return self.pending == 1 or not self.in_prefill

    @property
    def next_rows(self) -> int:
        """Tokens that may be computed at once."""
        return self.stop - self.done if self.done < self.stop else self.pending

    def piece(self, count: int) -> Piece:
        """Return its next ``count`` tokens, to be computed; with its drafts if these are all."""
        end = self.done + count
        if end < len(self.tokens):
            self.drafts.clear()
            return Piece(self.slot, self.tokens[self.done : end], self.done, 0)
        tokens = [*self.tokens[self.done : end], *self.drafts]
        return Piece(self.slot, tokens, self.done, 1 + len(self.drafts))


Source = CachedPrefix | SlotSequence


@define(eq=False)
class SharedPrefixes:
    """The prefixes that a context holds for later sequences.

    :ivar rows: computed so far; the clock by which unused prefixes age.
    """

    context: Context
    store: PrefixCache
    window: Window
    rows: int = 0
    _compaction: Compaction = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._compaction = Compaction(self.context)

    def computed(self, rows: int) -> None:
        """Let the clock go on: a step of ``rows`` was computed."""
        hot = sum(len(tokens) for _, tokens in self.store.hot_tokens())
        self.rows += max(rows, LEAST_ROWS) if hot > MANY_CELLS else rows

    def used(self, running: RunningSet[SlotSequence]) -> int:
        """Return the cells that running sequences and hot prefixes take."""
        held = [(one.cache_space, one.tokens[: one.done]) for one in running]
        return distinct([*self.store.hot_tokens(), *held])

    def start(self, new: SlotSequence, running: RunningSet[SlotSequence]) -> None:
        """Let ``new`` begin with the longest prefix there is; ``cached`` is set to its length.

        One that shares much more with a prompt that is being computed does not start yet.
        """
        length, source = self._longest(new, running)
        if _is_worth_waiting(new, running, length, source):
            return
        if source is None or not self._copy(new, source, length):
            length = 0
        elif not self.window.reaches(self.context, new.slot, length):
            self.context.drop(new.slot)
            length = 0
        new.done = new.cached = length

    def keep(self, running: SlotSequence, others: RunningSet[SlotSequence]) -> None:
        """Keep what a sequence that leaves has computed."""
        self._compaction.note(self.used(others) + running.done)
        if running.in_prefill or running.done < WORTH_KEEPING:
            return
        tokens, space = running.tokens[: running.done], running.cache_space
        for kept in self.store.redundant(tokens, space):
            self._forget(kept)
        if self.store.is_full:
            self.park_oldest()
        new = self.store.keep(tokens, space, self.rows)
        if new is None:
            return
        if new.slot is not None:
            self.context.copy(running.slot, new.slot, running.done)
            return
        state = self.context.save(running.slot, running.done, self.store.budget_bytes)
        if state is not None:
            self.store.park(new, state)
        else:
            self.store.forget(new)

    def held(self, tokens: Seq[int], space: str, running: RunningSet[SlotSequence]) -> int:
        """Return how many of ``tokens`` a later sequence can begin with, or will be able to."""
        kept = self.store.best(tokens, space)
        length = kept[0] if kept is not None else 0
        if kept is not None and kept[1].slot is not None:
            length *= self.window.reaches(self.context, kept[1].slot, length)
        elif kept is not None and 0 < self.window.tokens <= len(kept[1].tokens):
            length *= length == len(kept[1].tokens)
        others = (common(tokens, one.tokens) for one in running if one.cache_space == space)
        return max(length, *others, 0)

    def put(
        self,
        tokens: list[int],
        space: str,
        start: int,
        states: Seq[bytearray],
        running: RunningSet[SlotSequence],
    ) -> bool:
        """Keep ``tokens``, of which those before ``start`` are held already.

        :param states: of the blocks from there on.
        :returns: False if there is no room, or a state is not one of this context.
        """
        if self.store.is_full:
            self.park_oldest()
        source = self._source(tokens[:start], space, running) if start else None
        if start and source is None:
            return False
        new = self.store.keep(tokens, space, self.rows)
        if new is None or new.slot is None:
            return new is None
        is_whole = False
        try:
            with suppress(ValueError):  # a state of other tokens
                is_whole = self._fill(new, source, start, states)
        finally:
            for kept in self.store.redundant(tokens, space) if is_whole else [new]:
                self._forget(kept)
        return is_whole

    def _source(
        self, tokens: list[int], space: str, running: RunningSet[SlotSequence]
    ) -> Source | None:
        """Return what holds all of ``tokens``."""
        for other in running:
            if other.cache_space == space:
                shared = min(common(tokens, other.tokens), other.done)
                if shared == len(tokens):
                    return other
        kept = self.store.best(tokens, space)
        return kept[1] if kept is not None and kept[0] == len(tokens) else None

    def _fill(
        self, new: CachedPrefix, source: Source | None, start: int, states: Seq[bytearray]
    ) -> bool:
        """Bring the tokens of a new prefix into its slot."""
        assert new.slot is not None
        parked = source.state if isinstance(source, CachedPrefix) else None
        if parked is not None and source is not None:
            if not self._insert(new, parked, 0, len(source.tokens)):
                return False
            self.context.drop(new.slot, start)
        elif source is not None and source.slot is not None:
            self.context.copy(source.slot, new.slot, start)
        places = range(start, len(new.tokens), STATE_TOKENS)
        is_whole = all(
            self._insert(new, state, place, place + STATE_TOKENS)
            for place, state in zip(places, states, strict=True)
        )
        return is_whole and self.context.drop(new.slot, len(new.tokens))

    def _insert(
        self, new: CachedPrefix, state: bytearray | memoryview, start: int, end: int
    ) -> bool:
        assert new.slot is not None
        while not self.context.insert(new.slot, state, start, end):
            oldest = self.store.oldest_hot()
            if oldest is None or oldest is new or not self.park_oldest():
                return False
        return True

    def tidy(self, running: RunningSet[SlotSequence]) -> None:
        """Park a prefix that was not used for long, and let what runs be at the front of the cache,
        where steps do not read past cells that are not in use.
        """
        if self.store.cold(self.rows):
            self.park_oldest(must_free=False)
        if not (self._can_move and self._compaction.is_due(self.rows)):
            return
        used = self.used(running)
        self._compaction.note(used)
        if len(running) and self._compaction.is_sparse(used):
            self._move(running)

    @property
    def _can_move(self) -> bool:
        """Whether sequences can be moved: no part of a window can, and slots without holders have
        cells of their own.
        """
        return bool(self.context.holders) and not self.window.tokens

    def _move(self, running: RunningSet[SlotSequence]) -> None:
        for _ in self.store.hot_tokens():
            self.park_oldest(must_free=False)
        held = {one.slot: one for one in running if one.done}
        lengths = [(slot, one.done) for slot, one in held.items()]
        for slot in self._compaction.move(lengths, self.used(running)):
            running.preempt(held[slot])

    def park_oldest(self, *, must_free: bool = True) -> bool:
        """Park the oldest hot prefix, or forget it if it ``must_free`` its cells and is too big.

        :returns: whether there was one.
        """
        kept = self.store.oldest_hot()
        if kept is None or kept.slot is None:
            return False
        slot = kept.slot
        state = self.context.save(slot, len(kept.tokens), self.store.budget_bytes)
        if state is not None:
            self.store.park(kept, state)
            self.context.drop(slot)
        elif must_free:
            self._forget(kept)
        else:
            kept.used = self.rows  # it stays hot; asked again after as many rows
        return True

    def clear(self) -> None:
        """Forget all prefixes."""
        self._compaction.note(distinct(self.store.hot_tokens()))
        for kept in self.store:
            self._forget(kept)

    def _longest(
        self, new: SlotSequence, running: RunningSet[SlotSequence]
    ) -> tuple[int, Source | None]:
        """Return the longest prefix that is held for another, and by what."""
        limit = len(new.tokens) - 1  # the last one must be computed: its logits are needed
        length: int = 0
        source: Source | None = None
        for other in running:
            if other.cache_space != new.cache_space:
                continue
            shared = min(common(new.tokens, other.tokens), other.done, limit)
            if shared > length:
                length, source = shared, other
        kept = self.store.best(new.tokens, new.cache_space)
        if kept is not None and min(kept[0], limit) > length:
            return min(kept[0], limit), kept[1]
        return length, source

    def _copy(self, new: SlotSequence, source: Source, length: int) -> bool:
        """Let ``new`` hold ``length`` tokens of ``source``; False if there is no room."""
        if isinstance(source, CachedPrefix):
            source.used = self.rows
            if source.state is not None:
                return self._restore(new, source.state, length)
        if source.slot is None:
            return False
        self.context.copy(source.slot, new.slot, length)
        return True

    def _restore(self, new: SlotSequence, state: memoryview, length: int) -> bool:
        while not self.context.restore(new.slot, state, length):
            if not self.park_oldest():
                return False
        return True

    def _forget(self, kept: CachedPrefix) -> None:
        if kept.slot is not None:
            self.context.drop(kept.slot)
        self.store.forget(kept)


def _is_worth_waiting(
    new: SlotSequence, running: RunningSet[SlotSequence], length: int, source: Source | None
) -> bool:
    """Return whether an older prompt will soon hold much more of ``new`` than ``source`` does."""
    return any(
        shared > other.done and (other is source or shared >= length + WORTH_WAITING)
        for other, shared in running.older_prompts(new)
    )
