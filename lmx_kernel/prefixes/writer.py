"""Writes states in a thread of its own, so that no step of an engine waits for a disk."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from queue import SimpleQueue

from lmx_kernel.engine.footprint import QUEUE_BYTES
from lmx_kernel.prefixes.store import PrefixStore


class StateWriter:
    """A queue of what the store is to do.

    :ivar written_bytes: of states, since the start.
    :ivar write_s: what that took.
    """

    def __init__(self, store: PrefixStore) -> None:
        self.written_bytes = 0
        self.write_s = 0.0
        self._store = store
        self._lock = threading.Lock()
        self._waiting_bytes = 0
        self._queue: SimpleQueue[Callable[[], None]] = SimpleQueue()
        threading.Thread(target=self._run, name="prefix-writer", daemon=True).start()
        self._queue.put(store.make_room)

    @property
    def is_full(self) -> bool:
        """Whether no state should be offered now."""
        return self._waiting_bytes >= QUEUE_BYTES

    def write(self, index: int, key: bytes, state: memoryview, parts: Iterable[bytes] = ()) -> None:
        """Write a state soon; the caller leaves it alone from now on.

        :param parts: keys of its beginnings.
        """
        with self._lock:
            self._waiting_bytes += state.nbytes
        self._store.note(index, key, state.nbytes, parts)
        self._queue.put(partial(self._write, index, key, state))

    def touch(self, blocks: Sequence[tuple[int, bytes]]) -> None:
        """Note soon that blocks were used; without any the thread is not woken."""
        if blocks:
            self._queue.put(partial(self._store.touch, blocks))

    def remove(self, blocks: Sequence[tuple[int, bytes]]) -> None:
        """Delete blocks soon, those that wait to be written included."""
        if blocks:
            self._queue.put(partial(self._store.remove, blocks))

    def flush(self, timeout_s: float) -> None:
        """Wait until all is written that waits now."""
        done = threading.Event()
        self._queue.put(done.set)
        done.wait(timeout_s)

    def _write(self, index: int, key: bytes, state: memoryview) -> None:
        began_s = time.monotonic()
        try:
            if self._store.write(index, key, state):
                self.written_bytes += state.nbytes
                self.write_s += time.monotonic() - began_s
        finally:
            with self._lock:
                self._waiting_bytes -= state.nbytes

    def _run(self) -> None:
        while True:
            job = self._queue.get()
            try:
                job()
            except Exception as error:  # noqa: BLE001 - the next job may succeed
                self._store.warn(f"prefixes on disk: {type(error).__name__}: {error}")
