"""A llama.cpp context that turns texts into vectors; as careful as ``context.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import llama_cpp as llama
import numpy as np
from attrs import define
from numpy.typing import NDArray

from lmx_gguf_backend.footprint import ENCODER_SLOTS, encoder_rows
from lmx_gguf_backend.library import LOG, Model
from lmx_gguf_backend.pulse import Pulse
from lmx_gguf_backend.rows import Piece, Rows, check
from lmx_gguf_backend.settings import GgufSettings
from lmx_kernel.errors import InsufficientMemoryError
from lmx_kernel.types import LoadOptions


@define
class Encoder:
    """Computes whole texts, each in a slot of its own, and pools each into one vector.

    :param memory: the cache of a model that reads from left to right, or None.
    :param width: numbers in a vector.
    :param rows: tokens of one computation, and of one text.
    :param pulse: tells whether it computes.
    """

    handle: int
    memory: int | None
    width: int
    rows: int
    vocabulary: int
    pulse: Pulse
    _table: Rows

    @classmethod
    def open(
        cls, model: Model, options: LoadOptions, settings: GgufSettings, threads: int
    ) -> Encoder:
        """Make a context on ``model``.

        :raises InsufficientMemoryError: the library could not allocate it.
        """
        rows = encoder_rows(options)
        LOG.errors.clear()
        params = _params(rows, _pooling(model), settings, threads)
        handle = llama.llama_init_from_model(model.handle, params)
        if not handle:
            raise InsufficientMemoryError(f"{model.path.name}: {LOG.reason(model.path)}")
        return cls(
            handle=handle,
            memory=llama.llama_get_memory(handle),
            width=llama.llama_model_n_embd_out(model.handle),
            rows=rows,
            vocabulary=llama.llama_vocab_n_tokens(model.vocabulary),
            pulse=Pulse(handle),
            table=Rows(rows),
        )

    def encode(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32] | int:
        """Return a row for each text, or the library's code if it could not compute them."""
        check(0 < len(texts) <= ENCODER_SLOTS and all(texts))
        check(sum(map(len, texts)) <= self.rows)
        self._table.clear()
        for slot, tokens in enumerate(texts):
            self._table.add(Piece(slot, tokens, 0, 1), self.vocabulary)
        self._table.outputs[: self._table.count] = 1  # all of them are pooled
        code = int(llama.llama_decode(self.handle, self._table.batch()))
        self.pulse.allow()
        if self.memory:
            llama.llama_memory_clear(self.memory, False)
        return code or np.stack([self._vector(slot) for slot in range(len(texts))])

    def close(self) -> None:
        """Free the context."""
        if self.handle:
            llama.llama_free(self.handle)
            self.handle = 0

    def _vector(self, slot: int) -> NDArray[np.float32]:
        pointer = llama.llama_get_embeddings_seq(self.handle, slot)
        check(bool(pointer))
        return np.ctypeslib.as_array(pointer, (self.width,)).copy()


def _pooling(model: Model) -> int:
    """Return how the vectors of a text's tokens become one: as the file says, or their mean."""
    says = model.metadata(f"{model.metadata('general.architecture')}.pooling_type")
    is_open = says in (None, str(llama.LLAMA_POOLING_TYPE_NONE))
    return llama.LLAMA_POOLING_TYPE_MEAN if is_open else llama.LLAMA_POOLING_TYPE_UNSPECIFIED


def _params(rows: int, pooling: int, settings: GgufSettings, threads: int) -> Any:
    params: Any = llama.llama_context_default_params()
    # A text is computed as a whole: its first token sees its last one.
    params.n_ctx = params.n_batch = params.n_ubatch = rows
    params.n_seq_max = ENCODER_SLOTS
    params.n_threads = params.n_threads_batch = threads
    params.embeddings = True
    params.pooling_type = pooling
    params.kv_unified = True
    params.flash_attn_type = int(settings.flash_attention)
    params.no_perf = True
    return params
