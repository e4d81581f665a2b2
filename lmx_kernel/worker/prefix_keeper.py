"""Moves states between an engine and the store on disk.

The engine's thread plans, and copies states out of the engine and into it. Files are read and
written in threads beside it, so that no step waits for a disk.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from attrs import asdict, define, field, frozen

from lmx_kernel.engine.footprint import BATCH_BYTES
from lmx_kernel.engine.protocol import Sequence, Step
from lmx_kernel.engine.running import NOT_FINITE
from lmx_kernel.engine.states import STATE_TOKENS, PortableStates
from lmx_kernel.prefixes.keys import PART_TOKENS, extend_keys, first_key, part_keys
from lmx_kernel.prefixes.read_rate import ReadRate
from lmx_kernel.prefixes.store import PrefixStore
from lmx_kernel.prefixes.writer import StateWriter

LEAST_BLOCKS = 4
"""Fewer are neither written nor read: to compute them costs little."""

FLUSH_S = 2.0


@frozen
class Fetched:
    """States that were read for a sequence that waits for them.

    :param states: of the next blocks; empty if there are no more.
    """

    states: list[bytearray]
    read_s: float


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


@define
class Counts:
    """Figures since the start of the worker, by the names under which they are reported."""

    prefix_hits_memory: int = 0
    prefix_hits_disk: int = 0
    prefix_misses: int = 0
    prefix_tokens_memory: int = 0
    prefix_tokens_disk: int = 0
    prefix_read_bytes: int = 0
    prefix_read_s: float = 0.0

    def add(self, from_disk: int, cached: int) -> None:
        """Count what a sequence began with: tokens that were loaded for it, and in all."""
        self.prefix_hits_disk += from_disk > 0
        self.prefix_hits_memory += cached > from_disk
        self.prefix_misses += not cached
        self.prefix_tokens_disk += from_disk
        self.prefix_tokens_memory += cached - from_disk


@define(eq=False)
class _Fetch:
    """What is being loaded for one sequence.

    :param next: the first block that is not in memory.
    :param blocks: index and key of those that are on disk, from the first of all on.
    :param tokens: how many they are of: the last one may be used in part.
    """

    kept: _Kept
    next: int
    blocks: list[tuple[int, bytes]]
    tokens: int


class PrefixKeeper:
    """Keeps the states of an engine's sequences on disk, and finds them again.

    All but :meth:`close` is called on the engine's thread.

    :param deliver: called in another thread with what was read; it has to reach :meth:`take`.
    """

    def __init__(
        self, states: PortableStates, store: PrefixStore, deliver: Callable[[Fetched], None]
    ) -> None:
        self._states = states
        self._store = store
        self._deliver = deliver
        self._writer = StateWriter(store)
        self._reader = ThreadPoolExecutor(1, "prefix-reader")
        self._kept: dict[int, _Kept] = {}
        self._fetch: _Fetch | None = None
        self._waiting: deque[_Kept] = deque()
        self._counts = Counts()
        self._rate = ReadRate()
        self._reader.submit(self._rate.measure, store.sample)

    # --- before a sequence is added

    def begin(self, sequence: Sequence) -> bool:
        """Take note of a sequence that is to be added to the engine.

        :returns: True if that has to wait for states on disk: :meth:`take` returns it then.
        """
        first = first_key(self._store.identity, sequence.cache_space)
        kept = self._kept[sequence.id] = _Kept(sequence, first)
        if self._fetch is None:
            return self._start(kept)
        if self._plan(kept) is None:
            return False
        self._waiting.append(kept)  # what is being loaded may be of use for it
        return True

    def take(self, fetched: Fetched) -> list[Sequence]:
        """Let the engine take over what was read; return the sequences that need wait no longer."""
        fetch = self._fetch
        assert fetch is not None
        if fetched.states and self._import(fetch, fetched) and fetch.next < len(fetch.blocks):
            self._read(fetch)
            return []
        self._fetch = None
        ready = [fetch.kept]
        while self._waiting and self._fetch is None:
            kept = self._waiting.popleft()
            if not self._start(kept):
                ready.append(kept)
        return [kept.sequence for kept in ready]

    # --- while it runs

    def stepped(self, step: Step) -> None:
        """Store what a step completed."""
        for progress in step.progress:
            kept = self._kept[progress.id]
            self._count(kept, progress.cached)
            whole = progress.processed // STATE_TOKENS
            if progress.processed == progress.total or whole >= kept.stored + LEAST_BLOCKS:
                self._write(kept)
        for output in step.outputs:
            kept = self._kept[output.id]
            kept.tokens += output.tokens
            if len(kept.tokens) > (kept.stored + LEAST_BLOCKS) * STATE_TOKENS:
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

    def removed(self) -> None:
        """Do nothing: blocks are stored before a sequence is removed."""

    def figures(self) -> dict[str, float]:
        """Return what was found where, and what reading and writing took."""
        return {
            **asdict(self._counts),
            "prefix_written_bytes": self._writer.written_bytes,
            "prefix_write_s": self._writer.write_s,
        }

    def close(self) -> None:
        """Write what waits, for a moment at most; from any thread."""
        self._writer.flush(FLUSH_S)

    # --- reading

    def _plan(self, kept: _Kept) -> _Fetch | None:
        """Return what of a sequence to load; None if computing it is quicker."""
        tokens, space = kept.sequence.tokens, kept.sequence.cache_space
        most = (len(tokens) - 1) // STATE_TOKENS  # of the last token the logits are needed
        if most < LEAST_BLOCKS:
            return None
        kept.extend(most)
        end = next((i for i, key in enumerate(kept.keys) if key not in self._store), most)
        held = self._states.held(tokens, space)
        start = held // STATE_TOKENS
        if end - start < LEAST_BLOCKS:
            return None
        kept.tail, length = self._find_tail(kept, end)
        fetch = _Fetch(kept, start, [*enumerate(kept.keys[:end]), *kept.tail], length)
        size = sum(self._store.size_bytes(key) for _, key in fetch.blocks[start:])
        computing_s = (length - held) * self._states.prompt_token_s
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

    def _start(self, kept: _Kept) -> bool:
        fetch = self._plan(kept)
        if fetch is None:
            return False
        self._fetch = fetch
        self._read(fetch)
        return True

    def _read(self, fetch: _Fetch) -> None:
        self._reader.submit(self._read_blocks, fetch.blocks[fetch.next :])

    def _read_blocks(self, blocks: list[tuple[int, bytes]]) -> None:
        """Deliver the states of the next blocks that make a batch; none if the first is missing."""
        began_s = time.perf_counter()
        states: list[bytearray] = []
        try:
            for index, key in blocks:
                state = self._store.read(index, key)
                if state is None:
                    break
                states.append(state)
                if sum(map(len, states)) >= BATCH_BYTES:
                    break
        finally:  # a sequence waits for it
            self._deliver(Fetched(states, time.perf_counter() - began_s))

    def _import(self, fetch: _Fetch, fetched: Fetched) -> bool:
        began_s = time.perf_counter()
        end = fetch.next + len(fetched.states)
        sequence = fetch.kept.sequence
        start, length = fetch.next * STATE_TOKENS, min(end * STATE_TOKENS, fetch.tokens)
        tokens = sequence.tokens[:length]
        if not self._states.import_blocks(tokens, sequence.cache_space, start, fetched.states):
            return False
        size, took_s = sum(map(len, fetched.states)), fetched.read_s + time.perf_counter() - began_s
        self._rate.observe(size, took_s)
        self._counts.prefix_read_s += took_s
        self._counts.prefix_read_bytes += size
        fetch.kept.loaded = (fetch.kept.loaded or 0) + length - start
        fetch.next = end
        return True

    def _count(self, kept: _Kept, cached: int) -> None:
        """Count what a sequence began with, once."""
        if kept.loaded is None:
            return
        from_disk = min(kept.loaded, cached)
        kept.loaded = None
        self._counts.add(from_disk, cached)

    # --- writing

    def _write(self, kept: _Kept) -> None:
        """Store the blocks of a sequence that are complete."""
        computed = min(self._states.computed(kept.sequence.id), len(kept.tokens))
        whole = computed // STATE_TOKENS
        if whole < LEAST_BLOCKS:
            return
        kept.extend(whole)
        while kept.stored < whole and not self._writer.is_full:
            index, key = kept.stored, kept.keys[kept.stored]
            if key not in self._store:
                start = index * STATE_TOKENS
                state = self._states.export_block(kept.sequence.id, start)
                if state is None:
                    return
                parts = kept.part_keys(index, start + STATE_TOKENS)
                self._writer.write(index, key, state, parts)
            kept.stored += 1
