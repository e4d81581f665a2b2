"""The engine: sequences of tokens that llama.cpp continues, all in one batch."""

from __future__ import annotations

import time
from collections.abc import Sequence as Seq

import numpy as np
from attrs import define, field
from numpy.typing import NDArray

from lmx_gguf_backend.context import Context, Outcome, Piece
from lmx_gguf_backend.library import Model
from lmx_gguf_backend.prefill import plan_prefill
from lmx_gguf_backend.prefill_budget import LEAST_ROWS, TILE_ROWS, PrefillBudget
from lmx_gguf_backend.prefix import CachedPrefix, PrefixCache, distinct
from lmx_gguf_backend.threads import Threads
from lmx_kernel.engine import (
    EngineStats,
    Output,
    Progress,
    Sequence,
    Step,
    Tokenizer,
    TokenLogprobs,
    TokenMask,
)
from lmx_kernel.engine.numpy_sampler import Sampler, logprobs, read_mask
from lmx_kernel.engine.sequences import StepBuilder, check_sequence, common
from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.types import EngineLimits

WORTH_WAITING = 32
"""Tokens of a prompt that another is computing right now, for which it is waited."""

LEAST_FORCED, MOST_FORCED = 3, 32
"""Tokens that a mask forces and that are computed together with the one before: fewer cost as much
as one by one (2 rows 30 CPU ms, 4 rows 31, one 12.8), and running streams wait for more."""

WARM_UP_S = 1.0
"""A measurement that would take longer is left out."""

WORTH_KEEPING = 8
"""Tokens that a finished sequence must have for its cells to be kept."""


@define(eq=False)
class _Running:
    """A sequence in the engine.

    :param tokens: prompt and answer; grows.
    :param done: how many of them are computed and in the cache.
    :param target: tokens when it came in: what counts as its prompt's progress.
    :param cached: tokens taken over from a kept prefix; None until it started.
    """

    id: int
    slot: int
    tokens: list[int]
    target: int
    sampler: Sampler
    alternatives: int | None
    mask: TokenMask | None = None
    done: int = 0
    cached: int | None = None

    @property
    def pending(self) -> int:
        """Tokens to compute before the next one can be chosen."""
        return len(self.tokens) - self.done

    @property
    def in_prefill(self) -> bool:
        return self.done < self.target

    @property
    def is_decoding(self) -> bool:
        """Whether it waits for nothing but the token that was chosen and those forced with it."""
        return self.pending == 1 or not self.in_prefill

    def piece(self, count: int) -> Piece:
        end = self.done + count
        return Piece(self.slot, self.tokens[self.done : end], self.done, end == len(self.tokens))


Work = list[tuple[_Running, Piece]]


@define(eq=False)
class GgufEngine:
    """Continues sequences on one model; see :class:`lmx_kernel.engine.Engine`.

    :param store: kept prefixes, or None where the model cannot share them.
    """

    tokenizer: Tokenizer
    limits: EngineLimits
    _model: Model
    _context: Context
    _budget: PrefillBudget
    _threads: Threads
    _store: PrefixCache | None
    _running: dict[int, _Running] = field(factory=dict)
    _turn: int = 0
    _rows: int = 0
    _report: StepBuilder = field(factory=StepBuilder)
    _words: NDArray[np.int32] = field(init=False)

    @_words.default
    def _make_words(self) -> NDArray[np.int32]:
        """Return room for a mask: a bit for each token."""
        return np.zeros(-(-self._context.vocabulary // 32), np.int32)

    # --- joining and leaving

    def add(self, sequence: Sequence) -> None:
        """Take a sequence in; it is computed from the next step on.

        :raises InvalidRequestError: id, tokens or parameters are wrong, or no slot is free.
        :raises ContextOverflowError: longer than the context.
        """
        check_sequence(sequence, self._running, self.limits, self._context.vocabulary)
        sampler = Sampler(sequence.sampling, self._context.vocabulary, sequence.produced)
        sampler.read(sequence.tokens)
        slots = {running.slot for running in self._running.values()}
        self._running[sequence.id] = _Running(
            id=sequence.id,
            slot=next(slot for slot in range(self.limits.max_sequences) if slot not in slots),
            tokens=list(sequence.tokens),
            target=len(sequence.tokens),
            sampler=sampler,
            alternatives=sequence.logprobs,
            mask=sequence.mask,
        )

    def remove(self, sequence_id: int) -> None:
        """Forget a sequence; an unknown id is ignored.

        What a complete prompt and its answer left in the cache is kept for later ones.
        """
        running = self._running.pop(sequence_id, None)
        if running is None:
            return
        if self._store is not None and not running.in_prefill and running.done >= WORTH_KEEPING:
            self._keep(self._store, running)
        self._context.drop(running.slot)

    def _keep(self, store: PrefixCache, running: _Running) -> None:
        tokens = running.tokens[: running.done]
        for kept in store.redundant(tokens):
            self._forget(store, kept)
        if store.is_full:
            self._cool(store)
        new = store.keep(tokens, self._rows)
        if new is not None and new.slot is not None:
            self._context.copy(running.slot, new.slot, running.done)

    # --- stepping

    def step(self) -> Step:
        """Advance everything once: one decode of the batch, and a piece of prefill beside it."""
        self._report = StepBuilder()
        for running in list(self._running.values()):
            if running.done >= self.limits.context_length:
                self._fail(running, "its context is full")
        for running in self._running.values():
            self._start(running)
        self._compute(self._plan())
        if self._store is not None and self._store.cold(self._rows):
            self._cool(self._store, must_free=False)
        return self._report.build()

    def _plan(self) -> Work:
        """Return the rows of this step, decode rows first."""
        started = [running for running in self._running.values() if running.cached is not None]
        decoding = [running for running in started if running.is_decoding]
        prompts = [running for running in started if not running.is_decoding]
        share = self._context.rows // max(len(decoding), 1)
        work = [(running, running.piece(min(running.pending, share))) for running in decoding]
        room = self._context.rows - sum(len(piece.tokens) for _, piece in work)
        rows = min(self._budget.rows(len(decoding)), room)
        pieces = plan_prefill([running.pending for running in prompts], rows, self._turn)
        self._turn += bool(pieces)
        return work + [(prompts[index], prompts[index].piece(count)) for index, count in pieces]

    def _compute(self, work: Work) -> None:
        """Compute ``work``, whatever it takes: no sequence may stop the others."""
        while work:
            outcome = self._submit(work)
            if outcome == Outcome.DONE:
                self._advance(work)
                return
            if outcome == Outcome.NO_CELLS:
                self._make_room()
            else:
                self._isolate(work, outcome)
                return
            work = [(running, piece) for running, piece in work if running.id in self._running]

    def _submit(self, work: Work) -> int:
        """Compute ``work`` and learn from the time that it took; return the library's code."""
        pieces = [piece for _, piece in work]
        decoding = sum(len(piece.tokens) for running, piece in work if running.is_decoding)
        prefill = sum(len(piece.tokens) for piece in pieces) - decoding
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        threads = self._threads.most if prefill else self._threads.count(wall_s)
        self._context.use_threads(threads)
        outcome = self._context.compute(pieces)
        took_s = time.perf_counter() - wall_s
        if outcome == Outcome.DONE:
            self._budget.observe(decoding, prefill, took_s)
            if not prefill:
                self._threads.observe(threads, took_s, time.process_time() - cpu_s, wall_s + took_s)
        return outcome

    def _advance(self, work: Work) -> None:
        """Take in what was computed: progress of prompts, and a token for each complete one."""
        outputs = [running for running, piece in work if piece.wants_logits]
        for running, piece in work:
            if running.in_prefill:
                self._note_progress(running, len(piece.tokens))
            running.done += len(piece.tokens)
            self._rows += len(piece.tokens)
        if outputs:
            for running, row in zip(outputs, self._context.logits(len(outputs)), strict=True):
                self._choose(running, row)

    def _choose(self, running: _Running, logits: np.ndarray) -> None:
        # the place of the maximum is also that of the first NaN
        if not np.isfinite(logits[logits.argmax()]):
            self._fail(running, "the model computed numbers that are not finite")
            return
        raw = None if running.alternatives is None else logits.copy()
        token = running.sampler.choose(logits, self._allowed(running))
        details: tuple[TokenLogprobs, ...] = ()
        if raw is not None:
            details = (logprobs(raw, token, running.alternatives or 0),)
        tokens = (token, *self._forced(running, token))
        running.tokens += tokens
        self._report.outputs.append(Output(running.id, tokens, details))

    def _allowed(self, running: _Running) -> NDArray[np.bool_] | None:
        """Return which tokens a sequence's mask lets pass; None for all."""
        if running.mask is None or not running.mask.fill(self._words):
            return None
        return read_mask(self._words, self._context.vocabulary)

    def _forced(self, running: _Running, token: int) -> list[int]:
        """Return the tokens that must come after ``token``: these need no logits.

        Where log-probabilities are asked for they do, so those tokens are drawn one by one.
        """
        if running.mask is None:
            return []
        running.mask.accept((token,))
        if running.alternatives is not None:
            return []
        room = self.limits.context_length - len(running.tokens)  # the last one needs none
        forced = running.mask.forced()[: max(min(room, MOST_FORCED), 0)]
        if len(forced) < LEAST_FORCED:
            return []
        running.mask.accept(forced)
        running.sampler.note(forced)
        return forced

    def _note_progress(self, running: _Running, count: int) -> None:
        processed = min(running.done + count, running.target)
        self._report.progress.append(
            Progress(running.id, processed, running.target, running.cached or 0)
        )

    # --- prefixes

    def _start(self, running: _Running) -> None:
        """Let a new sequence take over the longest prefix that is in the cache.

        One that shares much more with a prompt that is being computed waits for it instead.
        """
        if running.cached is not None:
            return
        running.cached = 0
        if self._store is None:
            return
        limit = len(running.tokens) - 1  # the last one must be computed: its logits are needed
        length, source = self._longest(self._store, running, limit)
        if self._waits(running, limit, length, source):
            running.cached = None
        elif length and self._take(running, source, length):
            running.done = running.cached = length

    def _longest(
        self, store: PrefixCache, new: _Running, limit: int
    ) -> tuple[int, CachedPrefix | _Running | None]:
        """Return the longest prefix that is held for another, and by what."""
        length: int = 0
        source: CachedPrefix | _Running | None = None
        for other in self._running.values():
            shared = min(common(new.tokens, other.tokens), other.done, limit)
            if shared > length:
                length, source = shared, other
        kept = store.best(new.tokens)
        if kept is not None and min(kept[0], limit) > length:
            return min(kept[0], limit), kept[1]
        return length, source

    def _take(self, new: _Running, source: CachedPrefix | _Running | None, length: int) -> bool:
        """Let ``new`` begin with ``length`` tokens of ``source``; False if there is no room."""
        if isinstance(source, CachedPrefix):
            source.used = self._rows
            if source.state is not None:
                return self._restore(new, source.state, length)
        if source is None or source.slot is None:
            return False
        self._context.copy(source.slot, new.slot, length)
        return True

    def _restore(self, new: _Running, state: memoryview, length: int) -> bool:
        while not self._context.restore(new.slot, state, length):
            if self._store is None or not self._cool(self._store):
                return False
        return True

    def _waits(
        self, new: _Running, limit: int, length: int, source: CachedPrefix | _Running | None
    ) -> bool:
        """Whether an older prompt will soon hold much more of ``new`` than ``source`` does now."""
        for other in self._running.values():
            if other is new:
                return False  # only older ones: the oldest prompt never waits
            if other.in_prefill:
                shared = min(common(new.tokens, other.tokens), limit)
                is_worth_it = other is source or shared >= length + WORTH_WAITING
                if shared > other.done and is_worth_it:
                    return True
        return False

    # --- trouble

    def _forget(self, store: PrefixCache, kept: CachedPrefix) -> None:
        if kept.slot is not None:
            self._context.drop(kept.slot)
        store.forget(kept)

    def _cool(self, store: PrefixCache, *, must_free: bool = True) -> bool:
        """Park the oldest hot prefix, or forget it if it ``must_free`` its cells and is too big.

        :returns: whether there was one.
        """
        kept = store.oldest_hot()
        if kept is None or kept.slot is None:
            return False
        slot = kept.slot
        state = self._context.save(slot, len(kept.tokens), store.budget_bytes)
        if state is not None:
            store.park(kept, state)
            self._context.drop(slot)
        elif must_free:
            self._forget(store, kept)
        else:
            kept.used = self._rows  # it stays hot; asked again after as many rows
        return True

    def _make_room(self) -> None:
        """Free cells: those of the oldest kept prefix, else those of the youngest sequence."""
        if self._store is not None and self._cool(self._store):
            return
        holding = [running for running in self._running.values() if running.done]
        if len(self._running) == 1 or not holding:
            for running in list(self._running.values()):
                self._fail(running, f"the cache of {self._context.cells} tokens is full")
            return
        self._discard(holding[-1])
        self._report.preempted.append(holding[-1].id)

    def _isolate(self, work: Work, outcome: int) -> None:
        """After a failure, compute each sequence alone, so that only the one at fault is lost."""
        for running, piece in work:
            if not self._context.drop(running.slot, piece.position):
                self._fail(running, "its state was lost in a failed computation")
        if len(work) == 1:
            if work[0][0].id in self._running:
                self._fail(work[0][0], f"llama.cpp could not compute it (code {outcome})")
            return
        for running, piece in work:
            if running.id in self._running:
                self._compute([(running, piece)])

    def _fail(self, running: _Running, reason: str) -> None:
        self._discard(running)
        self._report.failed.append((running.id, reason))

    def _discard(self, running: _Running) -> None:
        """Put a sequence out; its cells are not kept."""
        del self._running[running.id]
        self._context.drop(running.slot)

    # --- the rest

    def embed(self, inputs: Seq[Seq[int]]) -> list[list[float]]:
        """Refuse: models that embed have an engine of their own.

        :raises InvalidRequestError: always.
        """
        raise InvalidRequestError("this model continues text; it makes no embeddings")

    def trim(self) -> None:
        """Forget the kept prefixes: what hot ones hold of the cache, and the states of parked ones.

        The cache itself is allocated once, so only parked states give memory back.
        """
        if self._store is not None:
            for kept in self._store:
                self._forget(self._store, kept)

    def stats(self) -> EngineStats:
        """Return current figures."""
        store = self._store or PrefixCache(range(0), 0)
        held = [running.tokens[: running.done] for running in self._running.values()]
        return EngineStats(
            cache_tokens_used=distinct([*store.hot_tokens(), *held]),
            details={"kept_prefixes": len(store), "parked_bytes": store.parked_bytes},
        )

    def close(self) -> None:
        """Free the cache and the weights, in this order."""
        self._running.clear()
        self._context.close()
        self._model.close()


def warm_up(context: Context) -> PrefillBudget:
    """Compute a few rows, which touches the weights, and return the budget that its times give."""
    row_s, times_s = 0.0, []
    for count in (1, LEAST_ROWS, TILE_ROWS):
        if row_s * count < WARM_UP_S:
            started_s = time.perf_counter()
            context.compute([Piece(0, [0] * count, 0, True)])
            row_s = (time.perf_counter() - started_s) / count
            context.drop(0)
        times_s.append(row_s)
    return PrefillBudget(row_s=times_s[1], tile_row_s=times_s[-1])
