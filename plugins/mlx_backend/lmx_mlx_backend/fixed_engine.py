"""An engine whose answers depend on the request and its seed alone, bit for bit.

:mod:`~lmx_mlx_backend.cells` says how. Every token of an answer is computed by itself, so
there are no drafts, and an answer that goes on after a crash is computed again token by token.
"""

from __future__ import annotations

import time
from collections.abc import Sequence as Seq

import mlx.core as mx
from attrs import define, field

from lmx_kernel.engine import EngineStats, Sequence, Step, Tokenizer
from lmx_kernel.engine.numerics import Numerics
from lmx_kernel.engine.running import NOT_FINITE, RunningSet
from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.types import EngineLimits
from lmx_mlx_backend.cells import PIECE, Cells, CellStore, KeptCells, usable
from lmx_mlx_backend.group import Row, choose_next, read_tokens, row_counts
from lmx_mlx_backend.model import COMPUTE_ERRORS, Model, reason_of
from lmx_mlx_backend.prefill_budget import PrefillBudget
from lmx_mlx_backend.sampler import Table


@define(eq=False, kw_only=True)
class SlotRow(Row):
    """A sequence and its slot."""

    slot: int

    @property
    def prompt(self) -> int:
        """Tokens of its prompt: what was answered before is computed as an answer again."""
        return len(self.request.tokens) - self.request.produced

    @property
    def needs_prompt(self) -> bool:
        """Whether a part of its prompt is not computed yet."""
        return self.done < self.prompt


@define(eq=False)
class FixedEngine:
    """Continues sequences on one model; see :class:`lmx_kernel.engine.Engine` and ``LongSteps``.

    :param store: what was computed before.
    :param numerics: what its numbers depend on.
    """

    tokenizer: Tokenizer
    limits: EngineLimits
    numerics: Numerics
    _model: Model
    _cells: Cells
    _store: CellStore
    _budget: PrefillBudget
    _running: RunningSet[SlotRow] = field(init=False)
    _pulse: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._running = RunningSet(self.limits, self._model.vocabulary, lambda *_: None)

    # --- joining and leaving

    def add(self, sequence: Sequence) -> None:
        """Add a sequence; it is computed from the next step on.

        :raises InvalidRequestError: id, tokens or parameters are wrong, or too many run.
        :raises ContextOverflowError: longer than the context.
        """
        self._running.check(sequence)
        taken = {row.slot for row in self._running}
        slot = next(slot for slot in range(self.limits.max_sequences) if slot not in taken)
        self._running.add(SlotRow(request=sequence, slot=slot))

    def remove(self, sequence_id: int) -> None:
        """Forget a sequence; an unknown id is ignored. What was computed is kept for later ones."""
        row = self._running.remove(sequence_id)
        if row is not None and row.done >= PIECE:
            tokens = row.tokens[: row.done]
            block = self._cells.take(row.slot, row.done)
            self._store.keep(KeptCells(tokens, row.prompt, row.cache_space, block))

    # --- stepping

    def step(self) -> Step:
        """Advance everything once: a token of each row, and pieces of prompts beside them."""
        started_s = time.perf_counter()
        self._running.begin_step()
        for row in self._running:
            if row.cached is None:
                self._start(row)
        streams = [row for row in self._running if not row.needs_prompt]
        self._decode(streams)
        rows = self._prefill(self._budget.rows(is_alone=not streams))
        if rows:
            self._budget.observe(rows, time.perf_counter() - started_s)
        return self._running.end_step()

    def _start(self, new: SlotRow) -> None:
        """Let a sequence begin with what is computed of it already."""
        length, block = self._store.best(new.tokens, new.prompt, new.cache_space)
        for other in self._running:
            if other is new or other.cache_space != new.cache_space:
                continue
            shared = usable(new.tokens, new.prompt, other.tokens[: other.done], other.prompt)
            if shared > length:
                length, block = shared, self._cells.take(other.slot, shared)
        if length:
            self._cells.put(new.slot, block, length)
        new.done = new.cached = length

    def _prefill(self, most_rows: int) -> int:
        """Compute pieces of prompts; return how many rows."""
        left, rows = max(most_rows // PIECE, 1), 0
        for row in self._running.in_turn([row for row in self._running if row.needs_prompt]):
            while left and row in self._running and row.needs_prompt:
                left, rows = left - 1, rows + PIECE
                self._advance(row)
        return rows

    def _advance(self, row: SlotRow) -> None:
        """Compute the next piece of a prompt, and the first token after the last one."""
        end = min(row.done + PIECE, row.prompt)
        try:
            logits = self._cells.compute_piece(row.slot, row.done, row.tokens[row.done : end])
            self._pulse += 1
            last, row.done = logits[end - row.done - 1][None], end
            self._running.report_progress(row)
            if row.done == len(row.tokens):
                self._choose([row], last)
        except COMPUTE_ERRORS as error:
            self._running.fail(row, reason_of(error))

    def _decode(self, rows: list[SlotRow]) -> None:
        """Compute a token of each row, and choose the next one of those that have no more."""
        if not rows:
            return
        lengths = [0] * self.limits.max_sequences
        for row in self._running:
            lengths[row.slot] = row.done
        tokens = {row.slot: (row.tokens[row.done], row.done) for row in rows}
        try:
            logits = self._cells.compute_batch(tokens, lengths)
            self._pulse += 1
            for row in rows:
                was_asked = row.in_prefill
                row.done += 1
                if was_asked:  # it was answered before
                    self._running.report_progress(row)
            ready = [row for row in rows if row.done == len(row.tokens)]
            if ready:
                self._choose(ready, logits[mx.array([row.slot for row in ready])])
        except COMPUTE_ERRORS as error:
            for row in rows:
                self._running.fail(row, reason_of(error))

    def _choose(self, rows: list[SlotRow], logits: mx.array) -> None:
        """Draw the next tokens of rows and give them out."""
        table = Table.of([row.sampling for row in rows])
        counts = row_counts(rows, self._model.vocabulary)
        chosen = choose_next(rows, table, logits, counts)
        for row, token in zip(rows, read_tokens(rows, chosen), strict=True):
            assert token is not None
            if row.problem or not token.is_finite:
                self._running.fail(row, row.problem or NOT_FINITE)
                continue
            details = (token.logprobs(row.alternatives),) if row.alternatives is not None else ()
            self._running.give_out(row, (token.id,), details)

    # --- the rest

    def embed(self, inputs: Seq[Seq[int]]) -> list[list[float]]:
        """Refuse: embeddings are not served.

        :raises InvalidRequestError: always.
        """
        raise InvalidRequestError("the MLX backend makes no embeddings")

    def pulse(self) -> int | None:
        """Return how many pieces of work were computed."""
        return self._pulse

    def trim(self) -> None:
        """Forget what is kept, and free the buffers that MLX keeps for later."""
        self._store.clear()
        mx.clear_cache()

    def stats(self) -> EngineStats:
        """Return current figures."""
        return EngineStats(
            cache_tokens_used=sum(row.done for row in self._running),
            memory_bytes=mx.get_active_memory() + mx.get_cache_memory(),
            details={"kept_prefixes": len(self._store), "kept_bytes": self._store.size_bytes},
        )

    def close(self) -> None:
        """Free cells and weights."""
        self._running.clear()
        self._store.clear()
        self._cells.layers.clear()
        self._model.close()
