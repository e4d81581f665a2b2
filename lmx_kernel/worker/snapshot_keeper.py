"""Moves whole states between an engine and the store on disk: those of models in which the state of
a block of tokens does not stand by itself.

What the engine keeps in memory is stored: a state near the end of each prompt, which serves the
same prompt and those that go on from there, and one of all that a sequence has computed. Of those
that one conversation builds on another only a few stay.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from attrs import define, field

from lmx_kernel.engine.protocol import Sequence, Step
from lmx_kernel.engine.running import NOT_FINITE
from lmx_kernel.engine.states import WholeStates
from lmx_kernel.prefixes.entry import MAX_STATE_BYTES
from lmx_kernel.prefixes.keys import whole_key
from lmx_kernel.prefixes.store import PrefixStore
from lmx_kernel.worker.state_keeper import LEAST_TOKENS, Fetch, Fetched, StateKeeper

MOST_IN_A_ROW = 4
"""States of one conversation, each of which begins with the one before: the first, which others may
begin with too, and the last ones.
"""

MOST_LENGTHS = 256
"""Of states that are looked for: for each a key is computed of every longer prompt. Those that were
used last count.
"""

Entry = tuple[int, bytes]
"""How many tokens a state is of, and its key."""


@define(eq=False)
class _Kept:
    """A sequence that runs, or waits for its state.

    :ivar said: tokens that were added to it.
    :ivar keys: of its first blocks, as far as they were needed.
    :ivar used: the state on disk that is its own, or that it began with.
    :ivar loaded: tokens of the state that was loaded for it.
    :ivar is_counted: whether it was seen what it began with.
    """

    sequence: Sequence
    first: bytes
    said: list[int] = field(factory=list)
    keys: list[bytes] = field(factory=list)
    used: Entry | None = None
    loaded: int = 0
    is_counted: bool = False


@define(eq=False)
class _Fetch(Fetch[_Kept]):
    """A state that is being loaded for a sequence."""

    entry: Entry


class SnapshotKeeper(StateKeeper[_Kept, _Fetch]):
    """Keeps whole states."""

    def __init__(
        self, states: WholeStates, store: PrefixStore, deliver: Callable[[Fetched], None]
    ) -> None:
        super().__init__(store, deliver)
        self._engine = states
        self._ending: _Kept | None = None
        self._lengths: dict[int, None] = {}
        for length in store.lengths():
            self._note(length)

    # --- while it runs

    def stepped(self, step: Step) -> None:
        """Store the state of each prompt that a step completed."""
        for progress in step.progress:
            kept = self._kept[progress.id]
            self._count(kept, progress.cached)
            if progress.processed == progress.total:
                self._write(kept, kept.sequence.tokens)
        for output in step.outputs:
            self._kept[output.id].said += output.tokens
        for sequence_id in step.preempted:
            self._touch(self._kept.pop(sequence_id))
        for sequence_id, reason in step.failed:
            kept = self._kept.pop(sequence_id)
            if reason == NOT_FINITE and kept.used is not None:  # it may be at fault
                self._writer.remove([kept.used])

    def end(self, sequence_id: int) -> None:
        """Take note that a sequence is about to be removed from the engine."""
        self._ending = self._kept.pop(sequence_id, None)

    def removed(self) -> None:
        """Store the state of all that was computed of the sequence that was removed."""
        kept, self._ending = self._ending, None
        if kept is not None:
            self._write(kept, [*kept.sequence.tokens, *kept.said])
            self._touch(kept)

    # --- reading

    def _keep(self, sequence: Sequence, first: bytes) -> _Kept:
        return _Kept(sequence, first)

    def _plan(self, kept: _Kept) -> _Fetch | None:
        tokens, space = kept.sequence.tokens, kept.sequence.cache_space
        if len(tokens) <= LEAST_TOKENS:
            return None
        entry = next(iter(self._stored(kept, tokens, len(tokens) - 1)), None)
        if entry is None:
            return None
        gained = entry[0] - self._engine.held(tokens, space)
        if gained < LEAST_TOKENS:
            return None
        computing_s = gained * self._engine.prompt_token_s
        is_worth = self._rate.is_worth(self._store.size_bytes(entry[1]), computing_s)
        return _Fetch(kept, entry) if is_worth else None

    def _stored(self, kept: _Kept, tokens: list[int], most: int) -> list[Entry]:
        """Return the states on disk of beginnings of ``tokens``, the longest first.

        :param most: tokens of one.
        """
        lengths = sorted((n for n in self._lengths if LEAST_TOKENS <= n <= most), reverse=True)
        entries = ((n, self._key(kept, tokens, n)) for n in lengths)
        return [entry for entry in entries if entry[1] in self._store]

    def _key(self, kept: _Kept, tokens: list[int], length: int) -> bytes:
        return whole_key(kept.keys, kept.first, tokens, length)

    def _note(self, length: int) -> None:
        """Note that a state of so many tokens is on disk, or was used."""
        self._lengths.pop(length, None)
        self._lengths[length] = None
        if len(self._lengths) > MOST_LENGTHS:
            del self._lengths[next(iter(self._lengths))]

    def _states(self, fetch: _Fetch) -> list[bytearray]:
        state = self._store.read(*fetch.entry)
        return [state] if state is not None else []

    def _import(self, fetch: _Fetch, fetched: Fetched) -> bool:
        began_s = time.perf_counter()
        sequence, (length, _), (state,) = fetch.kept.sequence, fetch.entry, fetched.states
        if not self._engine.import_whole(sequence.tokens[:length], sequence.cache_space, state):
            self._writer.remove([fetch.entry])
            return False
        self._count_read(len(state), fetched.read_s + time.perf_counter() - began_s)
        self._note(length)
        fetch.kept.loaded, fetch.kept.used = length, fetch.entry
        return False

    def _count(self, kept: _Kept, cached: int) -> None:
        """Count what a sequence began with, once."""
        if not kept.is_counted:
            kept.is_counted = True
            self._count_start(kept.loaded, cached)

    # --- writing

    def _write(self, kept: _Kept, tokens: list[int]) -> None:
        """Store the state that the engine keeps of the beginning of ``tokens``."""
        if len(tokens) <= LEAST_TOKENS or self._writer.is_full:
            return
        length = self._engine.held(tokens, kept.sequence.cache_space)
        if length < LEAST_TOKENS:
            return
        kept.used = length, self._key(kept, tokens, length)
        if kept.used[1] in self._store:
            return
        state = self._engine.export_whole(tokens[:length], kept.sequence.cache_space)
        if state is None or state.nbytes > min(MAX_STATE_BYTES, self._store.limit_bytes):
            return
        self._writer.write(*kept.used, state)
        self._note(length)
        shorter = self._stored(kept, tokens, length - 1)
        self._writer.remove(shorter[MOST_IN_A_ROW - 2 : -1])

    def _touch(self, kept: _Kept) -> None:
        if kept.used is not None:
            self._writer.touch([kept.used])
