"""The engine: sequences of tokens that llama.cpp continues, all in one batch."""

from __future__ import annotations

import time
from collections.abc import Sequence as Seq
from itertools import islice

import numpy as np
from attrs import define, field
from numpy.typing import NDArray

from lmx_gguf_backend.context import Context, Outcome, Piece
from lmx_gguf_backend.library import Model, has_gpu
from lmx_gguf_backend.prefill import plan_prefill
from lmx_gguf_backend.prefill_budget import LEAST_ROWS, TILE_ROWS, PrefillBudget
from lmx_gguf_backend.prefix import distinct
from lmx_gguf_backend.shared_prefixes import SharedPrefixes, SlotSequence
from lmx_gguf_backend.states import GgufStates
from lmx_gguf_backend.threads import Threads
from lmx_kernel.engine import EngineStats, Sequence, Step, Tokenizer, TokenLogprobs
from lmx_kernel.engine.drafting import Drafting
from lmx_kernel.engine.logits import apply_processors
from lmx_kernel.engine.numerics import Numerics
from lmx_kernel.engine.numpy_sampler import Logits, Sampler, logprobs, mask_words, read_masks
from lmx_kernel.engine.running import NOT_FINITE, RunningSet
from lmx_kernel.engine.step_costs import StepCosts
from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.types import EngineLimits

LEAST_FORCED = 3
"""Tokens that a mask forces and that are computed together with the one before: fewer cost as much
as one by one (2 rows 30 CPU ms, 4 rows 31, one 12.8), and running streams wait for more."""

WARM_UP_S = 1.0
"""A measurement that would take longer is left out."""

Work = list[tuple[SlotSequence, Piece]]


@define(eq=False)
class GgufEngine:
    """Continues sequences on one model; see :class:`lmx_kernel.engine.Engine` and ``LongSteps``.

    :param prefixes: None where the model cannot share them.
    :param drafting: how many drafts are computed; None where they cannot be taken back.
    :param identity: of its states, see :class:`lmx_kernel.engine.PortableStates`; "" where they
        are of no use to another process.
    :param numerics: what its numbers depend on.
    :ivar states: None in that case.
    """

    tokenizer: Tokenizer
    limits: EngineLimits
    _model: Model
    _context: Context
    _budget: PrefillBudget
    _threads: Threads
    _prefixes: SharedPrefixes | None
    _drafting: Drafting | None
    _identity: str = ""
    numerics: Numerics = field(kw_only=True)
    states: GgufStates | None = field(default=None, init=False)
    _running: RunningSet[SlotSequence] = field(init=False)
    _words: NDArray[np.int32] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._running = RunningSet(self.limits, self._context.vocabulary, self._release)
        self._words = mask_words(self._context.vocabulary)
        if self._identity and self._prefixes is not None:
            self.states = GgufStates(
                self._identity, self._context, self._prefixes, self._budget, self._running
            )

    # --- joining and leaving

    def add(self, sequence: Sequence) -> None:
        """Add a sequence; it is computed from the next step on.

        :raises InvalidRequestError: id, tokens or parameters are wrong, or no slot is free.
        :raises ContextOverflowError: longer than the context.
        """
        self._running.check(sequence)
        sampler = Sampler(sequence.sampling, self._context.vocabulary, sequence.produced)
        sampler.read(sequence.tokens)
        taken = {running.slot for running in self._running}
        slot = next(slot for slot in range(self.limits.max_sequences) if slot not in taken)
        self._running.add(SlotSequence(request=sequence, slot=slot, sampler=sampler))

    def remove(self, sequence_id: int) -> None:
        """Forget a sequence; an unknown id is ignored.

        What was computed of a complete prompt and its answer is kept for later ones.
        """
        running = self._running.remove(sequence_id)
        if running is None:
            return
        if self._prefixes is not None:
            self._prefixes.keep(running)
        self._context.drop(running.slot)

    def _release(self, running: SlotSequence, _: bool) -> None:
        """Free the cells of a sequence that failed, or was preempted because there were none."""
        self._context.drop(running.slot)

    # --- stepping

    def step(self) -> Step:
        """Advance everything once: one decode of the batch, and a piece of prefill beside it."""
        self._running.begin_step()
        for running in self._running:
            if running.cached is None:
                self._start(running)
        self._compute(self._plan())
        if self._prefixes is not None:
            self._prefixes.park_idle()
        return self._running.end_step()

    def _start(self, running: SlotSequence) -> None:
        if self._prefixes is None:
            running.cached = 0
        else:
            self._prefixes.start(running, self._running)

    def _plan(self) -> Work:
        """Return the rows of this step, decode rows first."""
        started = [running for running in self._running if running.cached is not None]
        decoding = [running for running in started if running.is_decoding]
        prompts = [running for running in started if not running.is_decoding]
        if self._drafting is not None:
            self._drafting.plan(decoding, self._running)
        share = self._context.rows // max(len(decoding), 1)
        work = [(running, running.piece(min(running.pending, share))) for running in decoding]
        room = self._context.rows - sum(len(piece.tokens) for _, piece in work)
        rows = min(self._budget.rows(len(decoding)), room)
        prompts = self._running.in_turn(prompts) if rows else []
        counts = plan_prefill([running.pending for running in prompts], rows)
        pieces = zip(prompts, counts, strict=True)
        return work + [(running, running.piece(count)) for running, count in pieces if count]

    def _compute(self, work: Work) -> None:
        """Compute ``work``, whatever it takes: no sequence may stop the others."""
        while work:
            outcome = self._submit(work)
            if outcome == Outcome.DONE:
                self._advance(work)
                return
            if outcome == Outcome.NO_CELLS:
                work = self._make_room(work)
            else:
                self._isolate(work, outcome)
                return

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
                if self._drafting is not None:
                    self._drafting.costs.observe(decoding, took_s)
                self._threads.observe(threads, took_s, time.process_time() - cpu_s, wall_s + took_s)
        return outcome

    def _advance(self, work: Work) -> None:
        """Take over what was computed: progress of prompts, and a token for each complete one."""
        for running, piece in work:
            was_prompt = running.in_prefill
            running.done += len(piece.tokens) - piece.drafts
            if was_prompt:
                self._running.report_progress(running)
        if self._prefixes is not None:
            self._prefixes.rows += sum(len(piece.tokens) for _, piece in work)
        count = sum(piece.outputs for _, piece in work)
        rows = iter(self._context.logits(count)) if count else iter(())
        for running, piece in work:
            if piece.outputs:
                self._choose(running, list(islice(rows, piece.outputs)))

    def _choose(self, running: SlotSequence, rows: Seq[Logits]) -> None:
        """Draw the tokens of a sequence: one, and one more after each draft that is right."""
        tokens: list[int] = []
        details: list[TokenLogprobs] = []
        problem = ""
        for logits in rows:
            raw = None if running.alternatives is None else logits.copy()
            problem = _process(running, logits)
            if problem:
                break
            token = running.sampler.choose(logits, _allowed(running, self._words))
            if raw is not None:
                details.append(logprobs(raw, token, running.alternatives or 0))
            if running.mask is not None:
                running.mask.accept((token,))
            tokens.append(token)
            if not running.may_go_on(tokens):
                break
        if not tokens:
            self._running.fail(running, problem)
            return
        running.done += len(tokens) - 1
        if len(tokens) < len(rows) and not self._context.drop(running.slot, running.done):
            self._running.fail(running, "what was computed in vain could not be forgotten")
            return
        forced = self._running.take_forced(running, LEAST_FORCED, drawn=len(tokens))
        if forced:
            running.sampler.note(forced)
        self._running.give_out(running, (*tokens, *forced), tuple(details))

    # --- trouble

    def _make_room(self, work: Work) -> Work:
        """Free cells, and return what is left to compute: drafts do without, then the oldest kept
        prefix has to go, else the youngest sequence.
        """
        if any(piece.drafts for _, piece in work):
            counts = [(running, len(piece.tokens) - piece.drafts) for running, piece in work]
            for running, _ in work:
                running.drafts.clear()
            return [(running, running.piece(count)) for running, count in counts]
        if self._prefixes is None or not self._prefixes.park_oldest():
            computed = {running.id for running, _ in work}
            self._running.make_room(
                [one for one in self._running if one.done or one.id in computed]
            )
        return [(running, piece) for running, piece in work if running in self._running]

    def _isolate(self, work: Work, outcome: int) -> None:
        """After a failure, compute each sequence alone, so that only the one at fault is lost."""
        for running, piece in work:
            if not self._context.drop(running.slot, piece.position):
                self._running.fail(running, "its state was lost in a failed computation")
        if len(work) == 1:
            self._running.fail(work[0][0], f"llama.cpp could not compute it (code {outcome})")
            return
        for running, piece in work:
            if running in self._running:
                self._compute([(running, piece)])

    # --- the rest

    def embed(self, inputs: Seq[Seq[int]]) -> list[list[float]]:
        """Refuse: models that embed have an engine of their own.

        :raises InvalidRequestError: always.
        """
        raise InvalidRequestError("this model continues text; it makes no embeddings")

    @property
    def exact_drafts(self) -> bool:
        """Whether texts are the same with drafts."""
        return self.numerics.is_reproducible

    def pulse(self) -> int | None:
        """Return a number that changes while nodes are computed; None where a GPU may do that, of
        which the library does not tell.
        """
        return None if has_gpu() else self._context.pulse.read()

    def trim(self) -> None:
        """Forget the kept prefixes: what hot ones hold of the cache, and the states of parked ones.

        The cache itself is allocated once, so only parked states free memory.
        """
        if self._prefixes is not None:
            self._prefixes.clear()

    def stats(self) -> EngineStats:
        """Return current figures."""
        held = [(one.cache_space, one.tokens[: one.done]) for one in self._running]
        store = self._prefixes.store if self._prefixes is not None else None
        return EngineStats(
            cache_tokens_used=distinct([*(store.hot_tokens() if store else ()), *held]),
            details={
                "kept_prefixes": len(store) if store else 0,
                "parked_bytes": store.parked_bytes if store else 0,
            },
        )

    def close(self) -> None:
        """Free the cache and the weights, in this order."""
        self._running.clear()
        self._context.close()
        self._model.close()


def _allowed(running: SlotSequence, words: NDArray[np.int32]) -> NDArray[np.bool_] | None:
    """Return which tokens a sequence's mask allows; None for all."""
    if running.mask is None or not running.mask.fill(words[0]):
        return None
    return read_masks(words, running.sampler.vocabulary)[0]


def _process(running: SlotSequence, logits: Logits) -> str:
    """Let the processors of a sequence change its logits; return why it cannot go on, if so."""
    # the place of the maximum is also that of the first NaN
    if not np.isfinite(logits[logits.argmax()]):
        return NOT_FINITE
    if not running.processors:
        return ""
    return apply_processors(running.processors, logits, running.tokens)


def warm_up(context: Context) -> tuple[PrefillBudget, StepCosts]:
    """Compute a few rows, which touches the weights; return what their times say of prompts and of
    small steps.
    """
    row_s, times_s = 0.0, {}
    for count in (1, 1, LEAST_ROWS, TILE_ROWS):  # the first time touches the weights
        if row_s * count < WARM_UP_S:
            started_s = time.perf_counter()
            context.compute([Piece(0, [0] * count, 0, 1)])
            row_s = (time.perf_counter() - started_s) / count
            context.drop(0)
        times_s[count] = row_s
    budget = PrefillBudget(row_s=times_s[LEAST_ROWS], tile_row_s=row_s)
    return budget, StepCosts({count: count * one_s for count, one_s in times_s.items()})
