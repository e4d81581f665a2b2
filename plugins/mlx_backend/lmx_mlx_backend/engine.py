"""The engine: sequences of tokens that an MLX model continues, in batches of like length."""

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
from lmx_mlx_backend import caches
from lmx_mlx_backend.group import Group, Row, Token, choose_next, read_tokens, row_counts
from lmx_mlx_backend.group_steps import GroupSteps
from lmx_mlx_backend.groups import Groups
from lmx_mlx_backend.model import COMPUTE_ERRORS, Model, reason_of
from lmx_mlx_backend.prefill import (
    TAIL,
    compute_last_pieces,
    compute_piece,
    plan_last_pieces,
    plan_piece,
)
from lmx_mlx_backend.prefill_budget import PrefillBudget
from lmx_mlx_backend.prefix import LEAST_SHARED, PrefixCache
from lmx_mlx_backend.sampler import Table
from lmx_mlx_backend.states import BlockLayout, MlxStates
from lmx_mlx_backend.whole_states import MlxWholeStates, WholeLayout


@define(eq=False)
class MlxEngine:
    """Continues sequences on one model: an ``Engine`` with ``LongSteps`` and ``ExactDrafts``.

    :param store: kept prefixes, or None where the model's caches cannot be copied.
    :param steps: how batches are advanced.
    :param layout: of a block's state, or of a whole one; None where neither is understood.
    :param numerics: what its numbers depend on.
    :param identity: of its states, see :class:`lmx_kernel.engine.PortableStates`.
    :param unportable: why there is no layout.
    :ivar states: None without a layout or a store.
    """

    tokenizer: Tokenizer
    limits: EngineLimits
    _model: Model
    _budget: PrefillBudget
    _store: PrefixCache | None
    _groups: Groups
    _steps: GroupSteps
    numerics: Numerics = field(kw_only=True)
    _layout: BlockLayout | WholeLayout | None = None
    _identity: str = ""
    unportable: str = ""
    states: MlxStates | MlxWholeStates | None = field(default=None, init=False)
    _running: RunningSet[Row] = field(init=False)
    _pulse: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._running = RunningSet(self.limits, self._model.vocabulary, self._release)
        if self._layout is not None and self._store is not None:
            self.states = self._states_of(self._layout, self._store)

    def _states_of(
        self, layout: BlockLayout | WholeLayout, store: PrefixCache
    ) -> MlxStates | MlxWholeStates:
        identity, module = self._identity, self._model.module
        if isinstance(layout, WholeLayout):
            return MlxWholeStates(identity, module, layout, store, self._budget)
        return MlxStates(identity, module, layout, store, self._groups, self._budget, self._running)

    # --- joining and leaving

    def add(self, sequence: Sequence) -> None:
        """Add a sequence; it is computed from the next step on.

        :raises InvalidRequestError: id, tokens or parameters are wrong, or too many run.
        :raises ContextOverflowError: longer than the context.
        """
        self._running.check(sequence)
        self._running.add(Row(request=sequence))

    def remove(self, sequence_id: int) -> None:
        """Forget a sequence; an unknown id is ignored.

        What was computed of a complete prompt and its answer is kept for later ones.
        """
        row = self._running.remove(sequence_id)
        if row is not None:
            self._release(row, True)

    def _release(self, row: Row, is_sound: bool) -> None:
        """Take a row out of its batch, and keep its cache if that ``is_sound``."""
        cache = self._groups.take_out(row)
        if cache is not None and is_sound:
            self._keep(row, cache)
            self._groups.merge()

    def _keep(self, row: Row, cache: caches.Cache) -> None:
        """Keep a copy of ``cache``, which holds what is computed of ``row``."""
        if self._store is not None and row.done >= LEAST_SHARED:
            self._store.keep(row.tokens[: row.done], row.cache_space, caches.copy(cache))

    # --- stepping

    def step(self) -> Step:
        """Advance everything once: one decode of each batch, and a piece of prefill beside it."""
        started_s = time.perf_counter()
        self._running.begin_step()
        self._running.fit_cache()
        for group in list(self._groups.all):
            self._decode(group)
        if self._groups.is_split:
            self._groups.merge()
        rows = self._prefill()
        if rows:
            self._budget.observe(rows, time.perf_counter() - started_s)
        return self._running.end_step()

    def _decode(self, group: Group) -> None:
        rows = list(group.rows)
        try:
            drawn = self._steps.advance(group, self._model.module, self._running)
        except COMPUTE_ERRORS as error:
            self._groups.all.remove(group)
            for row in rows:
                self._running.fail(row, reason_of(error))
            return
        self._pulse += 1
        for row, tokens in zip(rows, drawn, strict=True):
            self._give_out(group, row, tokens)

    def _give_out(self, group: Group, row: Row, drawn: list[Token]) -> None:
        tokens = [] if row.problem else [token for token in drawn if token.is_finite]
        if tokens:
            asked = tokens if row.alternatives is not None else ()
            details = tuple(token.logprobs(row.alternatives or 0) for token in asked)
            if group.rows == [row]:
                group.forced = self._running.take_forced(row, drawn=len(tokens))
                row.produced += len(group.forced)
            ids = (*(token.id for token in tokens), *group.forced)
            self._running.give_out(row, ids, details)
        if len(tokens) < len(drawn):
            self._running.fail(row, row.problem or NOT_FINITE)

    # --- prompts

    def _prefill(self) -> int:
        """Compute pieces of prompts; return how many rows."""
        rows = left = self._budget.rows(is_alone=not self._groups.all)
        last: list[Row] = []
        for row in self._running.in_turn([row for row in self._running if row.in_prefill]):
            while left > 0 and row not in last and self._can_go_on(row):
                count = plan_piece(row.pending, left)
                left -= count
                if count == row.pending:
                    last.append(row)
                else:
                    self._advance(row, count)
        cells = min(self._groups.padding_cells, self._groups.spare_cells)
        for batch in plan_last_pieces(last, cells):
            self._complete(batch)
        return rows - left

    def _can_go_on(self, row: Row) -> bool:
        """Return whether a prompt can be computed now; a new one takes over a kept prefix.

        A new one waits for room, and for an older prompt that is being computed and shares much.
        """
        if row not in self._running or not row.in_prefill:
            return False
        return row.cached is not None or self._start(row)

    def _start(self, new: Row) -> bool:
        if not self._running.has_room_for(new):
            return False
        found = None
        if self._store is not None:
            if self._comes_soon(new, self._store.best(new.tokens, new.cache_space) + LEAST_SHARED):
                return False
            found = self._store.take(new.tokens, new.cache_space)
        new.done, new.cache = found if found is not None else (0, caches.new(self._model.module))
        new.cached = new.done
        return True

    def _comes_soon(self, new: Row, length: int) -> bool:
        """Return whether an older prompt is being computed and will serve ``length`` tokens."""
        older = self._running.older_prompts(new)
        return any(one.cache and shared >= max(length, _least_of(one)) for one, shared in older)

    def _advance(self, row: Row, count: int) -> None:
        """Compute ``count`` tokens of a prompt, the last ones not among them."""
        try:
            compute_piece(self._model.module, row, count)
        except COMPUTE_ERRORS as error:
            self._running.fail(row, reason_of(error))
            return
        self._pulse += 1
        self._running.report_progress(row)

    def _complete(self, rows: list[Row]) -> None:
        """Compute what is left of prompts; where that fails for a batch, each by itself."""
        if not caches.can_trim(rows[0].cache):
            self._keep(rows[0], rows[0].cache)
        try:
            cache, logits = compute_last_pieces(self._model.module, rows)
        except COMPUTE_ERRORS as error:
            if len(rows) == 1:
                self._running.fail(rows[0], reason_of(error))
                return
            for row in rows:
                self._complete([row])
            return
        try:
            self._begin(rows, cache, logits)
        except COMPUTE_ERRORS as error:
            for row in rows:
                self._running.fail(row, reason_of(error))

    def _begin(self, rows: list[Row], cache: caches.Cache, logits: mx.array) -> None:
        """Give out the first tokens of rows whose prompts are complete; from now on they decode."""
        vocabulary = self._model.vocabulary
        counts = row_counts(rows, vocabulary)
        chosen = choose_next(rows, Table.of([row.sampling for row in rows]), logits, counts)
        tokens = read_tokens(rows, chosen)
        self._pulse += 1
        group = Group(list(rows), cache, chosen.given_out(), vocabulary, counts)
        self._groups.all.append(group)
        for row, token in zip(rows, tokens, strict=True):
            row.done, row.cache = len(row.tokens), []
            self._running.report_progress(row)
            if token is not None:
                self._give_out(group, row, [token])
        for row in [row for row in rows if row in self._running]:
            kept = group.cache_of(row)
            if caches.can_trim(kept):
                self._keep(row, kept)
        self._groups.merge()

    # --- the rest

    def embed(self, inputs: Seq[Seq[int]]) -> list[list[float]]:
        """Refuse: embeddings are not served.

        :raises InvalidRequestError: always.
        """
        raise InvalidRequestError("the MLX backend makes no embeddings")

    @property
    def exact_drafts(self) -> bool:
        """Whether texts are the same with drafts: on a CPU, which computes in float32."""
        return not self._steps.ahead

    def pulse(self) -> int | None:
        """Return how many pieces of work were computed; None on a GPU, on which a single one may
        take long, without a sign of it in this process.
        """
        return None if self._steps.ahead else self._pulse

    def trim(self) -> None:
        """Forget the kept prefixes, and free the buffers that MLX keeps for later."""
        if self._store is not None:
            self._store.clear()
        mx.clear_cache()

    def stats(self) -> EngineStats:
        """Return current figures."""
        memory = _memory(self._store or PrefixCache(0))
        return EngineStats(
            cache_tokens_used=sum(row.done for row in self._running),
            memory_bytes=memory["active_bytes"] + memory["cached_bytes"],
            details={"batches": len(self._groups.all), **memory},
        )

    def close(self) -> None:
        """Free caches and weights."""
        self._running.clear()
        self._groups.all.clear()
        self._store = None
        self._steps.close()
        self._model.close()


def _least_of(row: Row) -> int:
    """Return how many tokens of a prompt another must share to take its cache over."""
    return 0 if caches.can_trim(row.cache) else row.prompt_length - TAIL


def _memory(store: PrefixCache) -> dict[str, int]:
    """Return what MLX and the kept prefixes take."""
    return {
        "kept_prefixes": len(store),
        "kept_bytes": store.size_bytes,
        "active_bytes": mx.get_active_memory(),
        "cached_bytes": mx.get_cache_memory(),
        "peak_bytes": mx.get_peak_memory(),
    }
