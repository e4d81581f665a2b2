"""What keepers of states have in common: sequences wait for what is read, one read at a time."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, Protocol, TypeVar

from attrs import asdict, define, frozen

from lmx_kernel.engine.protocol import Sequence, Step
from lmx_kernel.prefixes.keys import first_key
from lmx_kernel.prefixes.read_rate import ReadRate
from lmx_kernel.prefixes.store import PrefixStore
from lmx_kernel.prefixes.writer import StateWriter

LEAST_TOKENS = 256
"""Fewer are neither written nor read: to compute them costs little."""

FLUSH_S = 2.0


@frozen
class Fetched:
    """States that were read for a sequence that waits for them.

    :param states: empty if there are no more.
    """

    states: list[bytearray]
    read_s: float


@define
class _Counts:
    """Figures since the start of the worker, by the names under which they are reported."""

    prefix_hits_memory: int = 0
    prefix_hits_disk: int = 0
    prefix_misses: int = 0
    prefix_tokens_memory: int = 0
    prefix_tokens_disk: int = 0
    prefix_read_bytes: int = 0
    prefix_read_s: float = 0.0


class Kept(Protocol):
    """A sequence that runs, or waits for states."""

    @property
    def sequence(self) -> Sequence:
        """As the engine gets it."""
        ...


K = TypeVar("K", bound=Kept)


@define(eq=False)
class Fetch(Generic[K]):
    """What is being loaded for one sequence."""

    kept: K


F = TypeVar("F", bound=Fetch[Any])


class StateKeeper(ABC, Generic[K, F]):
    """Keeps states of an engine's sequences on disk, and finds them again.

    All but :meth:`close` is called on the engine's thread.

    :param deliver: called in another thread with what was read; it has to reach :meth:`take`.
    """

    def __init__(self, store: PrefixStore, deliver: Callable[[Fetched], None]) -> None:
        self._store = store
        self._deliver = deliver
        self._writer = StateWriter(store)
        self._reader = ThreadPoolExecutor(1, "prefix-reader")
        self._kept: dict[int, K] = {}
        self._fetch: F | None = None
        self._waiting: deque[K] = deque()
        self._counts = _Counts()
        self._rate = ReadRate()
        self._reader.submit(self._rate.measure, store.sample)

    # --- before a sequence is added

    def begin(self, sequence: Sequence) -> bool:
        """Take note of a sequence that is to be added to the engine.

        :returns: True if that has to wait for states on disk: :meth:`take` returns it then.
        """
        first = first_key(self._store.identity, sequence.cache_space)
        kept = self._kept[sequence.id] = self._keep(sequence, first)
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
        if fetched.states and self._import(fetch, fetched):
            self._reader.submit(self._read, fetch)
            return []
        self._fetch = None
        ready = [fetch.kept]
        while self._waiting and self._fetch is None:
            kept = self._waiting.popleft()
            if not self._start(kept):
                ready.append(kept)
        return [kept.sequence for kept in ready]

    # --- while it runs

    @abstractmethod
    def stepped(self, step: Step) -> None:
        """Store what a step completed."""

    @abstractmethod
    def end(self, sequence_id: int) -> None:
        """Take note that a sequence is about to be removed from the engine."""

    def removed(self) -> None:
        """Take note that the sequence that ended last was removed."""

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

    # --- inside

    @abstractmethod
    def _keep(self, sequence: Sequence, first: bytes) -> K:
        """Return what is kept of a sequence.

        :param first: the key before its first block.
        """

    @abstractmethod
    def _plan(self, kept: K) -> F | None:
        """Return what to load for a sequence; None if computing it is quicker."""

    @abstractmethod
    def _states(self, fetch: F) -> list[bytearray]:
        """Read what is to be loaded next. Called in the thread that reads."""

    @abstractmethod
    def _import(self, fetch: F, fetched: Fetched) -> bool:
        """Let the engine take over what was read; return whether there is more to read."""

    def _start(self, kept: K) -> bool:
        self._fetch = self._plan(kept)
        if self._fetch is None:
            return False
        self._reader.submit(self._read, self._fetch)
        return True

    def _read(self, fetch: F) -> None:
        began_s = time.perf_counter()
        states: list[bytearray] = []
        try:
            states = self._states(fetch)
        finally:  # a sequence waits for it
            self._deliver(Fetched(states, time.perf_counter() - began_s))

    def _count_read(self, size_bytes: int, took_s: float) -> None:
        self._rate.observe(size_bytes, took_s)
        self._counts.prefix_read_s += took_s
        self._counts.prefix_read_bytes += size_bytes

    def _count_start(self, from_disk: int, cached: int) -> None:
        """Count what a sequence began with: tokens that were loaded for it, and in all."""
        counts, from_disk = self._counts, min(from_disk, cached)
        counts.prefix_hits_disk += from_disk > 0
        counts.prefix_hits_memory += cached > from_disk
        counts.prefix_misses += not cached
        counts.prefix_tokens_disk += from_disk
        counts.prefix_tokens_memory += cached - from_disk
