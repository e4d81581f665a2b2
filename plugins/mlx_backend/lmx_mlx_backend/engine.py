"""The engine: sequences of tokens that an MLX model continues, in batches of like length."""

from __future__ import annotations

import time

import mlx.core as mx
from attrs import define, field

from lmx_kernel.engine import EngineStats, Output, Progress, Sequence, Step, Tokenizer
from lmx_kernel.sequences import check_sequence, common
from lmx_kernel.types import EngineLimits
from lmx_mlx_backend import caches
from lmx_mlx_backend.group import (
    Group,
    Row,
    Token,
    choose_next,
    plan_merge,
    row_counts,
)
from lmx_mlx_backend.model import COMPUTE_ERRORS, Model
from lmx_mlx_backend.pace import Pace
from lmx_mlx_backend.prefix import LEAST_SHARED, PrefixStore
from lmx_mlx_backend.sampler import Table

TAIL = 32
"""Rows of a prompt's last piece: logits are computed for all rows of a call, and one is needed."""


@define
class _Report:
    """What the step at hand did so far."""

    outputs: list[Output] = field(factory=list)
    progress: list[Progress] = field(factory=list)
    preempted: list[int] = field(factory=list)
    failed: list[tuple[int, str]] = field(factory=list)

    def step(self) -> Step:
        return Step(
            tuple(self.outputs), tuple(self.progress), tuple(self.preempted), tuple(self.failed)
        )


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
    _pace: Pace
    _store: PrefixStore | None
    _padding_cells: int
    _spare_cells: int
    _ahead: bool
    _running: dict[int, Row] = field(factory=dict)
    _groups: list[Group] = field(factory=list)
    _turn: int = 0
    _report: _Report = field(factory=_Report)

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
        self._report = _Report()
        self._turn += 1
        started_s = time.perf_counter()
        for row in list(self._running.values()):
            if len(row.tokens) > self.limits.context_length:
                self._fail(row, "its context is full")
        self._make_room()
        for group in list(self._groups):
            self._decode(group)
        rows = self._prefill()
        if rows:
            self._pace.observe(rows, time.perf_counter() - started_s)
        return self._report.step()

    def _decode(self, group: Group) -> None:
        rows = list(group.rows)
        try:
            tokens = group.launch(self._model.module, ahead=self._ahead).read()
        except COMPUTE_ERRORS as error:
            self._fail_group(group, error)
            return
        for row, token in zip(rows, tokens, strict=True):
            if token is not None:
                self._give_out(row, token)

    def _give_out(self, row: Row, token: Token) -> None:
        if not token.is_finite:
            self._fail(row, "the model computed numbers that are not finite")
            return
        row.tokens.append(token.id)
        details = (token.logprobs(row.alternatives),) if row.alternatives is not None else ()
        self._report.outputs.append(Output(row.id, (token.id,), details))

    # --- prompts

    def _prefill(self) -> int:
        """Compute pieces of prompts, the oldest or the shortest first; return how many rows."""
        rows = self._pace.rows
        left = rows
        for row in self._waiting():
            while left > 0 and self._is_waiting(row) and self._can_start(row):
                left -= self._advance(row, left)
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

    def _advance(self, row: Row, limit: int) -> int:
        """Compute the next piece of a prompt of at most about ``limit`` rows; return its rows."""
        count = plan_piece(row.pending, limit)
        is_last = count == row.pending
        if is_last and not caches.can_trim(row.cache):
            self._keep(row.tokens[: row.done], row.cache)
        try:
            logits = self._compute(row, count, wants_logits=is_last)
            row.done += count
            self._report.progress.append(row.progress)
            if logits is not None:
                self._begin(row, logits)
        except COMPUTE_ERRORS as error:
            self._fail(row, _reason(error))
        return count

    def _compute(self, row: Row, count: int, *, wants_logits: bool) -> mx.array | None:
        tokens = mx.array([row.tokens[row.done : row.done + count]])
        logits = self._model.module(tokens, cache=row.cache)[:, -1]
        mx.eval(caches.arrays(row.cache), logits if wants_logits else [])
        return logits if wants_logits else None

    def _begin(self, row: Row, logits: mx.array) -> None:
        """Give out the first token of a row whose prompt is complete, and let it join a batch."""
        counts = row_counts(row, self._model.vocabulary)
        chosen = choose_next([row], Table.of([row.sampling]), logits, counts)
        cache, row.cache = row.cache, []
        for token in filter(None, chosen.read()):
            self._give_out(row, token)
        if row.id not in self._running:
            return
        if caches.can_trim(cache):
            self._keep(row.tokens[: row.done], cache)
        vocabulary = self._model.vocabulary
        self._groups.append(Group([row], cache, chosen.given_out(), vocabulary, counts))
        self._regroup()

    def _regroup(self) -> None:
        """Make one batch of those that cost less together."""
        while len(self._groups) > 1:
            lengths = [[row.done for row in group.rows] for group in self._groups]
            pair = plan_merge(lengths, self._padding_cells, self._spare_cells)
            if pair is None:
                return
            group, other = self._groups[pair[0]], self._groups.pop(pair[1])
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

    def stats(self) -> EngineStats:
        """Return current figures."""
        store = self._store or PrefixStore(0)
        return EngineStats(
            cache_tokens_used=sum(row.done for row in self._running.values()),
            details={
                "batches": len(self._groups),
                "kept_prefixes": len(store),
                "kept_bytes": store.size_bytes,
                "active_bytes": mx.get_active_memory(),
                "cached_bytes": mx.get_cache_memory(),
                "peak_bytes": mx.get_peak_memory(),
            },
        )

    def close(self) -> None:
        """Free caches and weights."""
        self._running.clear()
        self._groups.clear()
        self._store = None
        self._model.close()


def plan_piece(pending: int, limit: int) -> int:
    """Return how many of a prompt's ``pending`` rows to compute now.

    All but the last few rows are computed apart from these, whose logits are computed too.
    """
    return pending if pending <= 2 * TAIL else min(pending - TAIL, limit)


def _reason(error: Exception) -> str:
    return f"MLX could not compute it: {error}".splitlines()[0][:300]
