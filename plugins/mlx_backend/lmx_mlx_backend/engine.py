"""The engine: sequences of tokens that an MLX model continues, in batches of like length."""

from __future__ import annotations

import time
from collections.abc import Sequence as Seq

import mlx.core as mx
from attrs import define, field

from lmx_kernel.engine import EngineStats, Output, Sequence, Step, Tokenizer
from lmx_kernel.engine.sequences import StepBuilder, check_sequence, common
from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.types import EngineLimits
from lmx_mlx_backend import caches
from lmx_mlx_backend.group import (
    Group,
    Row,
    Token,
    choose_next,
    plan_merge,
    read_tokens,
    row_counts,
)
from lmx_mlx_backend.model import COMPUTE_ERRORS, Model
from lmx_mlx_backend.prefill import TAIL, plan_last_pieces, plan_piece
from lmx_mlx_backend.prefill_budget import PrefillBudget
from lmx_mlx_backend.prefix import LEAST_SHARED, PrefixCache
from lmx_mlx_backend.sampler import Table


@define(eq=False)
class MlxEngine:
    """Continues sequences on one model; see :class:`lmx_kernel.engine.Engine`.

    :param store: kept prefixes, or None where the model's caches cannot be copied.
    :param padding_cells: padding of one batch that costs as much as reading the weights once more.
    :param spare_cells: padding of all batches for which there is memory.
    :param ahead: the next step is computed while the last is read.
    """

    tokenizer: Tokenizer
    limits: EngineLimits
    _model: Model
    _budget: PrefillBudget
    _store: PrefixCache | None
    _padding_cells: int
    _spare_cells: int
    _ahead: bool
    _running: dict[int, Row] = field(factory=dict)
    _groups: list[Group] = field(factory=list)
    _is_split: bool = False
    _turn: int = 0
    _report: StepBuilder = field(factory=StepBuilder)

    # --- joining and leaving

    def add(self, sequence: Sequence) -> None:
        """Take a sequence in; it is computed from the next step on.

        :raises InvalidRequestError: id, tokens or parameters are wrong, or too many run.
        :raises ContextOverflowError: longer than the context.
        """
        check_sequence(sequence, self._running, self.limits, self._model.vocabulary)
        self._running[sequence.id] = Row(
            id=sequence.id,
            tokens=list(sequence.tokens),
            target=len(sequence.tokens),
            produced=sequence.produced,
            sampling=sequence.sampling,
            alternatives=sequence.logprobs and min(sequence.logprobs, self._model.vocabulary),
            mask=sequence.mask,
        )

    def remove(self, sequence_id: int) -> None:
        """Forget a sequence; an unknown id is ignored.

        What a complete prompt and its answer left in the cache is kept for later ones.
        """
        row = self._running.pop(sequence_id, None)
        if row is None:
            return
        group = self._group_of(row)
        if group is not None:
            self._keep(row.tokens[: row.done], self._leave(group, row))
            self._regroup()

    def _leave(self, group: Group, row: Row) -> caches.Cache:
        if len(group.rows) > 1:
            return group.drop(row)
        self._groups.remove(group)
        return group.cache

    def _group_of(self, row: Row) -> Group | None:
        return next((group for group in self._groups if row in group.rows), None)

    def _keep(self, tokens: list[int], cache: caches.Cache) -> None:
        if self._store is not None and len(tokens) >= LEAST_SHARED:
            self._store.keep(tokens, caches.copy(cache))

    # --- stepping

    def step(self) -> Step:
        """Advance everything once: one decode of each batch, and a piece of prefill beside it."""
        self._report = StepBuilder()
        self._turn += 1
        started_s = time.perf_counter()
        for row in list(self._running.values()):
            if len(row.tokens) > self.limits.context_length:
                self._fail(row, "its context is full")
        self._make_room()
        for group in list(self._groups):
            self._decode(group)
        if self._is_split:
            self._regroup()
        rows = self._prefill()
        if rows:
            self._budget.observe(rows, time.perf_counter() - started_s)
        return self._report.build()

    def _decode(self, group: Group) -> None:
        rows = list(group.rows)
        try:
            tokens = group.advance(self._model.module, ahead=self._ahead)
        except COMPUTE_ERRORS as error:
            self._fail_group(group, error)
            return
        for row, token in zip(rows, tokens, strict=True):
            if token is not None:
                self._give_out(group, row, token)

    def _give_out(self, group: Group, row: Row, token: Token) -> None:
        if not token.is_finite:
            self._fail(row, "the model computed numbers that are not finite")
            return
        details = (token.logprobs(row.alternatives),) if row.alternatives is not None else ()
        room = self.limits.context_length - len(row.tokens)  # the last one needs none
        tokens = (token.id, *group.take_forced(row, room))
        row.tokens += tokens
        self._report.outputs.append(Output(row.id, tokens, details))

    # --- prompts

    def _prefill(self) -> int:
        """Compute pieces of prompts, the oldest or the shortest first; return how many rows."""
        rows = left = self._budget.rows
        last: list[Row] = []
        for row in self._waiting():
            while left > 0 and row not in last and self._is_waiting(row) and self._can_start(row):
                count = plan_piece(row.pending, left)
                left -= count
                if count == row.pending:
                    last.append(row)
                else:
                    self._advance(row, count)
        for batch in plan_last_pieces(last, min(self._padding_cells, self._spare_cells)):
            self._complete(batch)
        return rows - left

    def _waiting(self) -> list[Row]:
        """Return rows in prefill in their order: every other turn a short one need not wait."""
        rows = [row for row in self._running.values() if row.done < row.target]
        return sorted(rows, key=lambda row: row.pending) if self._turn % 2 == 0 else rows

    def _is_waiting(self, row: Row) -> bool:
        return row.done < row.target and row.id in self._running

    def _can_start(self, new: Row) -> bool:
        """Let a new row take over the longest prefix that is kept; False if it has to wait.

        It waits for room, and for an older prompt that is being computed and shares much more.
        """
        if new.cached is not None:
            return True
        oldest = next(iter(self._running.values()))
        if new is not oldest and self._cells_wanted() + len(new.tokens) > self.limits.cache_tokens:
            return False
        found = None
        if self._store is not None:
            if self._comes_soon(new, self._store.best(new.tokens) + LEAST_SHARED):
                return False
            found = self._store.take(new.tokens)
        new.done, new.cache = found if found is not None else (0, caches.new(self._model.module))
        new.cached = new.done
        return True

    def _comes_soon(self, new: Row, length: int) -> bool:
        """Return whether an older prompt is being computed and will serve ``length`` tokens."""
        for other in self._running.values():
            if other is new:
                break
            shared = min(common(new.tokens, other.tokens), len(new.tokens) - 1)
            if other.cache and shared >= length:
                end = 0 if caches.can_trim(other.cache) else other.target - TAIL
                if shared >= end:
                    return True
        return False

    def _advance(self, row: Row, count: int) -> None:
        """Compute ``count`` tokens of a prompt, the last ones not among them."""
        try:
            tokens = mx.array([row.tokens[row.done : row.done + count]])
            self._model.module(tokens, cache=row.cache)
            mx.eval(caches.arrays(row.cache))
        except COMPUTE_ERRORS as error:
            self._fail(row, _reason(error))
            return
        row.done += count
        self._report.progress.append(row.progress)

    def _complete(self, rows: list[Row]) -> None:
        """Compute what is left of prompts; where that fails for a batch, each by itself."""
        if not caches.can_trim(rows[0].cache):
            self._keep(rows[0].tokens[: rows[0].done], rows[0].cache)
        try:
            cache, logits = self._last_pieces(rows)
        except COMPUTE_ERRORS as error:
            if len(rows) == 1:
                self._fail(rows[0], _reason(error))
                return
            for row in rows:
                self._complete([row])
            return
        try:
            self._begin(rows, cache, logits)
        except COMPUTE_ERRORS as error:
            for row in rows:
                self._fail(row, _reason(error))

    def _last_pieces(self, rows: list[Row]) -> tuple[caches.Cache, mx.array]:
        """Compute what is left of prompts; return their cache and the logits after each."""
        pieces = [row.tokens[row.done :] for row in rows]
        lengths = [len(piece) for piece in pieces]
        tokens = [piece + [0] * (max(lengths) - len(piece)) for piece in pieces]
        cache = rows[0].cache if len(rows) == 1 else caches.merge([row.cache for row in rows])
        with caches.padded(cache, lengths):
            logits = self._model.module(mx.array(tokens), cache=cache)
        logits = logits[mx.arange(len(rows)), mx.array(lengths) - 1]
        mx.eval(caches.arrays(cache), logits)
        return cache, logits

    def _begin(self, rows: list[Row], cache: caches.Cache, logits: mx.array) -> None:
        """Give out the first tokens of rows whose prompts are complete; from now on they decode."""
        vocabulary = self._model.vocabulary
        counts = row_counts(rows, vocabulary)
        chosen = choose_next(rows, Table.of([row.sampling for row in rows]), logits, counts)
        tokens = read_tokens(rows, chosen)
        group = Group(list(rows), cache, chosen.given_out(), vocabulary, counts)
        self._groups.append(group)
        for row, token in zip(rows, tokens, strict=True):
            row.done, row.cache = len(row.tokens), []
            self._report.progress.append(row.progress)
            if token is not None:
                self._give_out(group, row, token)
        for row in [row for row in rows if row.id in self._running]:
            kept = group.cache_of(row)
            if caches.can_trim(kept):
                self._keep(row.tokens[: row.done], kept)
        self._regroup()

    def _regroup(self) -> None:
        """Make one batch of those that cost less together; one with forced tokens has to wait."""
        while True:
            groups = [group for group in self._groups if not group.forced]
            self._is_split = len(groups) < len(self._groups)
            lengths = [[row.done for row in group.rows] for group in groups]
            pair = plan_merge(lengths, self._padding_cells, self._spare_cells)
            if pair is None:
                return
            group, other = groups[pair[0]], groups[pair[1]]
            self._groups.remove(other)
            group.absorb(other)

    # --- trouble

    def _make_room(self) -> None:
        """Put out the youngest sequences while the cache is too small for this step."""
        while self._cells_wanted() > self.limits.cache_tokens:
            holding = [row for row in self._running.values() if row.done]
            if len(holding) < 2:
                for row in holding:
                    self._fail(row, f"the cache of {self.limits.cache_tokens} tokens is full")
                return
            self.remove(holding[-1].id)  # kept as a prefix, it comes back at little cost
            self._report.preempted.append(holding[-1].id)

    def _cells_wanted(self) -> int:
        """Return what this step needs: of a prompt that began, the whole is counted."""
        limit = self.limits.context_length  # after the last token that fits, none is computed
        started = (row for row in self._running.values() if row.done)
        return sum(min(max(row.done + 1, len(row.tokens)), limit) for row in started)

    def _fail_group(self, group: Group, error: Exception) -> None:
        for row in list(group.rows):
            self._report.failed.append((row.id, _reason(error)))
            del self._running[row.id]
        self._groups.remove(group)

    def _fail(self, row: Row, reason: str) -> None:
        if row.id in self._running:
            self._discard(row)
            self._report.failed.append((row.id, reason))

    def _discard(self, row: Row) -> None:
        """Put a sequence out; its cache is not kept."""
        del self._running[row.id]
        group = self._group_of(row)
        if group is not None:
            self._leave(group, row)

    # --- the rest

    def embed(self, inputs: Seq[Seq[int]]) -> list[list[float]]:
        """Refuse: embeddings are not served.

        :raises InvalidRequestError: always.
        """
        raise InvalidRequestError("the MLX backend makes no embeddings")

    def trim(self) -> None:
        """Forget the kept prefixes, and give back the buffers that MLX keeps for later."""
        if self._store is not None:
            self._store.clear()
        mx.clear_cache()

    def stats(self) -> EngineStats:
        """Return current figures."""
        store = self._store or PrefixCache(0)
        active_bytes, cached_bytes = mx.get_active_memory(), mx.get_cache_memory()
        return EngineStats(
            cache_tokens_used=sum(row.done for row in self._running.values()),
            memory_bytes=active_bytes + cached_bytes,
            details={
                "batches": len(self._groups),
                "kept_prefixes": len(store),
                "kept_bytes": store.size_bytes,
                "active_bytes": active_bytes,
                "cached_bytes": cached_bytes,
                "peak_bytes": mx.get_peak_memory(),
            },
        )

    def close(self) -> None:
        """Free caches and weights."""
        self._running.clear()
        self._groups.clear()
        self._store = None
        self._model.close()


def _reason(error: Exception) -> str:
    return f"MLX could not compute it: {error}".splitlines()[0][:300]
