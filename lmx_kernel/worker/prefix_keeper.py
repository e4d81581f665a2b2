"""Moves states between an engine and the store on disk.

The engine's thread plans, and copies states out of the engine and into it. Files are read and
written in threads beside it, so that no step waits for a disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from attrs import define, field

from lmx_kernel.engine.footprint import BATCH_BYTES
from lmx_kernel.engine.protocol import Sequence, Step
from lmx_kernel.engine.running import NOT_FINITE
from lmx_kernel.engine.states import STATE_TOKENS, PortableStates
from lmx_kernel.prefixes.keys import PART_TOKENS, extend_keys, part_keys
from lmx_kernel.prefixes.store import PrefixStore
from lmx_kernel.worker.state_keeper import LEAST_TOKENS, Fetch, Fetched, StateKeeper

LEAST_BLOCKS = LEAST_TOKENS // STATE_TOKENS


@define(eq=False)
class _Kept:
    """A sequence that runs, or waits for states.

    :ivar tokens: prompt and answer.
    :ivar keys: of its first blocks, as far as they were needed.
    :ivar stored: blocks that are on disk, or about to be.
    :ivar loaded: tokens that were loaded for it; None once it was seen what it began with.
    :ivar tail: a block on disk of which it has the beginning only.
    """

    sequence: Sequence
    first: bytes
    tokens: list[int] = field(init=False)
    keys: list[bytes] = field(factory=list)
    stored: int = 0
    loaded: int | None = 0
    tail: list[tuple[int, bytes]] = field(factory=list)

    @tokens.default
    def _copy_tokens(self) -> list[int]:
        return list(self.sequence.tokens)

    def blocks(self) -> list[tuple[int, bytes]]:
        """Return index and key of the blocks that are on disk."""
        return [*enumerate(self.keys[: self.stored]), *self.tail]

    def part_keys(self, block: int, end: int) -> list[bytes]:
        """Return the keys of the beginnings of a block.

        :param end: of the tokens that count.
        """
        before = self.keys[block - 1] if block else self.first
        return part_keys(before, self.tokens[block * STATE_TOKENS : end])

    def extend(self, blocks: int) -> None:
        """Find out the keys of so many blocks."""
        extend_keys(self.keys, self.first, self.tokens, blocks)


@define(eq=False)
class _Fetch(Fetch[_Kept]):
    """What is being loaded for one sequence.

    :param next: the first block that is not in memory.
    :param blocks: index and key of those that are on disk, from the first of all on.
    :param tokens: how many they are of: the last one may be used in part.
    """

    next: int
    blocks: list[tuple[int, bytes]]
    tokens: int


class PrefixKeeper(StateKeeper[_Kept, _Fetch]):
    """Keeps the states of blocks. What was read is taken over in batches."""

    def __init__(
        self, states: PortableStates, store: PrefixStore, deliver: Callable[[Fetched], None]
    ) -> None:
        super().__init__(store, deliver)
        self._engine = states

    # --- while it runs

    def stepped(self, step: Step) -> None:
        """Store what a step completed."""
        for progress in step.progress:
            kept = self._kept[progress.id]
            self._count(kept, progress.cached)
            self._write(kept)
        for output in step.outputs:
            kept = self._kept[output.id]
            kept.tokens += output.tokens
            if len(kept.tokens) > max(kept.stored + 1, LEAST_BLOCKS) * STATE_TOKENS:
                self._write(kept)
        for sequence_id in step.preempted:
            self._writer.touch(self._kept.pop(sequence_id).blocks())
        for sequence_id, reason in step.failed:
            kept = self._kept.pop(sequence_id)
            if reason == NOT_FINITE:  # what it was computed from may be at fault
                self._writer.remove(list(enumerate(kept.keys)))

    def end(self, sequence_id: int) -> None:
        """Store the rest of a sequence, which is about to be removed from the engine."""
        kept = self._kept.pop(sequence_id, None)
        if kept is not None:
            self._write(kept)
            self._writer.touch(kept.blocks())

    # --- reading

    def _keep(self, sequence: Sequence, first: bytes) -> _Kept:
        return _Kept(sequence, first)

    def _plan(self, kept: _Kept) -> _Fetch | None:
        tokens, space = kept.sequence.tokens, kept.sequence.cache_space
        most = (len(tokens) - 1) // STATE_TOKENS  # of the last token the logits are needed
        if most < LEAST_BLOCKS:
            return None
        kept.extend(most)
        end = next((i for i, key in enumerate(kept.keys) if key not in self._store), most)
        held = self._engine.held(tokens, space)
        start = held // STATE_TOKENS
        if end - start < LEAST_BLOCKS:
            return None
        kept.tail, length = self._find_tail(kept, end)
        fetch = _Fetch(kept, start, [*enumerate(kept.keys[:end]), *kept.tail], length)
        size = sum(self._store.size_bytes(key) for _, key in fetch.blocks[start:])
        computing_s = (length - held) * self._engine.prompt_token_s
        return fetch if self._rate.is_worth(size, computing_s) else None

    def _find_tail(self, kept: _Kept, end: int) -> tuple[list[tuple[int, bytes]], int]:
        """Return a block on disk that begins as the one at ``end``, if there is one, and how many
        tokens there are on disk with it.
        """
        last = min((end + 1) * STATE_TOKENS, len(kept.sequence.tokens) - 1)
        parts = kept.part_keys(end, last)
        for count in range(len(parts), 0, -1):
            key = self._store.key_of(parts[count - 1])
            if key is not None:
                return [(end, key)], end * STATE_TOKENS + count * PART_TOKENS
        return [], end * STATE_TOKENS

    def _states(self, fetch: _Fetch) -> list[bytearray]:
        """Read the next blocks that make a batch; none if the first is missing."""
        states: list[bytearray] = []
        for index, key in fetch.blocks[fetch.next :]:
            state = self._store.read(index, key)
            if state is None:
                break
            states.append(state)
            if sum(map(len, states)) >= BATCH_BYTES:
                break
        return states

    def _import(self, fetch: _Fetch, fetched: Fetched) -> bool:
        began_s = time.perf_counter()
        end = fetch.next + len(fetched.states)
        sequence = fetch.kept.sequence
        start, length = fetch.next * STATE_TOKENS, min(end * STATE_TOKENS, fetch.tokens)
        tokens = sequence.tokens[:length]
        if not self._engine.import_blocks(tokens, sequence.cache_space, start, fetched.states):
            return False
        took_s = fetched.read_s + time.perf_counter() - began_s
        self._count_read(sum(map(len, fetched.states)), took_s)
        fetch.kept.loaded = (fetch.kept.loaded or 0) + length - start
        fetch.next = end
        return end < len(fetch.blocks)

    def _count(self, kept: _Kept, cached: int) -> None:
        """Count what a sequence began with, once."""
        if kept.loaded is not None:
            self._count_start(kept.loaded, cached)
            kept.loaded = None

    # --- writing

    def _write(self, kept: _Kept) -> None:
        """Store the blocks of a sequence that are complete."""
        computed = min(self._engine.computed(kept.sequence.id), len(kept.tokens))
        whole = computed // STATE_TOKENS
        if whole < LEAST_BLOCKS:
            return
        kept.extend(whole)
        while kept.stored < whole and not self._writer.is_full:
            index, key = kept.stored, kept.keys[kept.stored]
            if key not in self._store:
                start = index * STATE_TOKENS
                state = self._engine.export_block(kept.sequence.id, start)
                if state is None:
                    return
                parts = kept.part_keys(index, start + STATE_TOKENS)
                self._writer.write(index, key, state, parts)
            kept.stored += 1
