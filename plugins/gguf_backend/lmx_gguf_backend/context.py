"""A llama.cpp context: the cache of keys and values, and the computation of rows.

The library answers a wrong argument with abort(), which ends the process. So every call is made
here, after its arguments were checked.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import llama_cpp as llama
import numpy as np
from attrs import define, field
from numpy.typing import NDArray

from lmx_gguf_backend.footprint import output_rows
from lmx_gguf_backend.library import LOG, Model
from lmx_gguf_backend.pulse import Pulse
from lmx_gguf_backend.rows import Piece, Rows, check
from lmx_gguf_backend.settings import GgufSettings
from lmx_kernel.errors import InsufficientMemoryError, InvalidRequestError
from lmx_kernel.types import LoadOptions

MAX_SLOTS = 256
"""Sequence ids that the library has room for (llama_max_parallel_sequences)."""

MAX_PARALLEL = 192
"""Slots for running sequences; the ids above them hold kept prefixes."""

MAX_CELLS = 1 << 30

ROWS = 512
"""Rows of one computation."""

_BYTES = ctypes.POINTER(ctypes.c_uint8)

CACHE_TYPES = {"f16": llama.GGML_TYPE_F16, "q8_0": llama.GGML_TYPE_Q8_0}


class Outcome(IntEnum):
    """Return codes of llama_decode that are told apart; all others are failures too."""

    DONE = 0
    NO_CELLS = 1
    STOPPED = 2


@define
class Context:
    """A cache with its slots.

    Slots below ``parallel`` can be computed, the next one is a scratch, all others just hold.

    Foreign calls let other threads have the interpreter. So there are few before a computation:
    who gets it does its work meanwhile, and not before.

    :param rows: the most rows of one computation; the library lowers it for small caches.
    :param pulse: tells whether it computes.
    """

    handle: int
    memory: int
    cells: int
    parallel: int
    vocabulary: int
    rows: int
    pulse: Pulse
    _threads: int
    _table: Rows = field(factory=lambda: Rows(ROWS), init=False)

    @classmethod
    def open(
        cls, model: Model, options: LoadOptions, settings: GgufSettings, threads: int
    ) -> Context:
        """Make a context on ``model``.

        :raises InvalidRequestError: more sequences or tokens than the library can count.
        :raises InsufficientMemoryError: the library could not allocate it.
        """
        if not 1 <= options.parallel <= MAX_PARALLEL:
            raise InvalidRequestError(f"parallel must be 1 to {MAX_PARALLEL}", param="parallel")
        if not 1 <= options.cache_tokens < MAX_CELLS:
            raise InvalidRequestError(f"cache_tokens must be 1 to {MAX_CELLS}")
        LOG.errors.clear()
        params = cls.params(options, settings, threads)
        handle = llama.llama_init_from_model(model.handle, params)
        if not handle:
            raise InsufficientMemoryError(f"{model.path.name}: {LOG.reason(model.path)}")
        return cls(
            handle=handle,
            memory=llama.llama_get_memory(handle),
            cells=llama.llama_n_ctx(handle),
            parallel=options.parallel,
            vocabulary=llama.llama_vocab_n_tokens(model.vocabulary),
            rows=min(ROWS, int(llama.llama_n_batch(handle))),
            threads=threads,
            pulse=Pulse(handle),
        )

    @classmethod
    def params(cls, options: LoadOptions, settings: GgufSettings, threads: int) -> Any:
        """Return the library's parameters."""
        return context_params(options, settings, threads)

    @property
    def holders(self) -> range:
        """The slots that just hold."""
        return range(self.parallel + 1, MAX_SLOTS)

    def copy(self, source: int, target: int, length: int) -> None:
        """Let ``target`` hold the first ``length`` tokens of ``source`` too; takes no cells."""
        check(0 <= source < MAX_SLOTS and 0 <= target < MAX_SLOTS and length > 0)
        llama.llama_memory_seq_cp(self.memory, source, target, 0, length)

    def drop(self, slot: int, start: int = 0, end: int = -1) -> bool:
        """Forget a slot's tokens from ``start`` on.

        :param end: the first to keep again; -1 for none.

        :returns: False where the model can only forget a whole sequence; nothing changed then.
        """
        check(0 <= slot < MAX_SLOTS and start >= 0)
        return bool(llama.llama_memory_seq_rm(self.memory, slot, start, end))

    def save(self, slot: int, length: int, limit_bytes: int) -> memoryview | None:
        """Return a copy of the ``length`` tokens that a slot holds; None if larger than the limit.

        Made by way of a slot that can be computed: the library writes states of the others that
        it refuses to read.
        """
        scratch = self.parallel
        self.copy(slot, scratch, length)
        try:
            size = int(llama.llama_state_seq_get_size(self.handle, scratch))
            if size > limit_bytes:
                return None
            return self.read_state(scratch)
        finally:
            self.drop(scratch)

    def restore(self, slot: int, state: memoryview, length: int) -> bool:
        """Let an empty slot hold the first ``length`` tokens of a state of this context.

        :returns: False where there is no room; nothing changed then.
        """
        check(0 <= slot < self.parallel)
        buffer = (ctypes.c_uint8 * state.nbytes).from_buffer(state)
        if not llama.llama_state_seq_set_data(self.handle, buffer, state.nbytes, slot):
            return False
        return self.drop(slot, length)

    def state_bytes(self, slot: int, start: int, end: int) -> int:
        """Return the size of a state of the tokens from ``start`` to ``end`` of a slot."""
        check(0 <= slot < MAX_SLOTS and 0 <= start < end)
        llama.llama_memory_seq_cp(self.memory, slot, self.parallel, start, end)
        size = int(llama.llama_state_seq_get_size(self.handle, self.parallel))
        self.drop(self.parallel)
        return size

    def export(self, slot: int, start: int, end: int) -> memoryview:
        """Return a copy of the tokens from ``start`` to ``end`` that a slot holds."""
        check(0 <= slot < MAX_SLOTS and 0 <= start < end)
        scratch = self.parallel
        llama.llama_memory_seq_cp(self.memory, slot, scratch, start, end)
        try:
            return self.read_state(scratch)
        finally:
            self.drop(scratch)

    def read_state(self, slot: int) -> memoryview:
        """Return a copy of all that a slot which can be computed, or the scratch, holds."""
        check(0 <= slot <= self.parallel)
        size = int(llama.llama_state_seq_get_size(self.handle, slot))
        state = np.empty(size, np.uint8)  # not zeroed, which takes as long as the copy
        pointer = state.ctypes.data_as(_BYTES)
        check(llama.llama_state_seq_get_data(self.handle, pointer, size, slot) == size)
        return memoryview(state)

    def restore_whole(self, slot: int, state: memoryview, length: int) -> bool:
        """Let an empty slot hold a state of exactly ``length`` tokens.

        :returns: False where there is no room, or it is no such state; the slot is empty then.
        """
        check(0 <= slot < self.parallel)
        buffer = (ctypes.c_uint8 * state.nbytes).from_buffer(state)
        read = llama.llama_state_seq_set_data(self.handle, buffer, state.nbytes, slot)
        last = llama.llama_memory_seq_pos_max(self.memory, slot)
        if (read, last) == (state.nbytes, length - 1):
            return True
        self.drop(slot)
        return False

    def insert(self, slot: int, state: bytearray | memoryview, start: int, end: int) -> bool:
        """Let a slot hold the tokens from ``start`` to ``end`` too, from a state of this context.

        :returns: False where there is no room; nothing changed then.
        :raises ValueError: the state is not of exactly these tokens; nothing changed.
        """
        check(0 <= slot < MAX_SLOTS and 0 <= start < end)
        scratch, size = self.parallel, memoryview(state).nbytes
        buffer = (ctypes.c_uint8 * size).from_buffer(state)
        try:
            if not llama.llama_state_seq_set_data(self.handle, buffer, size, scratch):
                return False
            first = llama.llama_memory_seq_pos_min(self.memory, scratch)
            last = llama.llama_memory_seq_pos_max(self.memory, scratch)
            check((first, last) == (start, end - 1))
            llama.llama_memory_seq_cp(self.memory, scratch, slot, start, end)
            return True
        finally:
            self.drop(scratch)

    def use_threads(self, count: int) -> None:
        """Compute with so many threads from now on."""
        check(count > 0)
        if count != self._threads:
            self._threads = count
            llama.llama_set_n_threads(self.handle, count, count)

    def compute(self, pieces: Sequence[Piece]) -> int:
        """Compute ``pieces`` and return the library's code, see :class:`Outcome`.

        With NO_CELLS or a negative code of -1, nothing changed; with STOPPED, see
        :class:`~lmx_gguf_backend.pulse.Pulse`, slots may hold some of the rows.
        """
        count = sum(len(piece.tokens) for piece in pieces)
        check(0 < count <= self.rows)
        check(sum(piece.outputs for piece in pieces) <= output_rows(self.parallel))
        self._table.clear()
        for piece in pieces:
            check(0 <= piece.slot < self.parallel and piece.position >= 0)
            check(0 <= piece.outputs <= len(piece.tokens))
            self._table.add(piece, self.vocabulary)
        outcome = int(llama.llama_decode(self.handle, self._table.batch()))
        self.pulse.allow()
        return outcome

    def logits(self, count: int) -> NDArray[np.float32]:
        """Return the logits that the last computation was asked for, one row for each, in order.

        A view that may be written to; it dies at the next computation.
        """
        pointer = llama.llama_get_logits(self.handle)
        return np.ctypeslib.as_array(pointer, (count, self.vocabulary))

    def close(self) -> None:
        """Free the cache."""
        if self.handle:
            llama.llama_free(self.handle)
            self.handle = 0


def context_params(options: LoadOptions, settings: GgufSettings, threads: int) -> Any:
    """Return the parameters of a context; the comments are for what differs from the defaults."""
    params: Any = llama.llama_context_default_params()
    params.n_ctx = options.cache_tokens
    params.n_batch = params.n_ubatch = ROWS
    params.n_seq_max = options.parallel + 1  # and the scratch
    # the default keeps room for logits of every row
    params.n_outputs_max = output_rows(options.parallel)
    params.n_threads = params.n_threads_batch = threads
    params.kv_unified = True  # prefixes are shared without copying; needs flash attention's speed
    params.flash_attn_type = int(settings.flash_attention)
    params.type_k = params.type_v = CACHE_TYPES[settings.cache_type]
    # A windowed cache forgets what a shared prefix needs, and tells nobody: the text is silently
    # wrong. The whole cache takes more memory (the estimate counts it) and is always right.
    params.swa_full = True
    params.no_perf = True
    return params
