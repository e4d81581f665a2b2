"""The sequences that an engine continues: in what order their prompts are computed, what a step
reports of them, and which one has to leave when the cache is full.

An engine keeps the computation and the cache. It derives a class from :class:`RunningSequence` for
what it holds for a sequence, and leaves the decisions to a :class:`RunningSet`::

    def step(self) -> Step:
        self._running.begin_step()
        ...  # compute; report_progress, give_out or fail for each sequence
        return self._running.end_step()
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Seq
from typing import Generic, TypeVar

from attrs import define, field

from lmx_kernel.engine.drafter import FIRST_SHARE, Drafter
from lmx_kernel.engine.protocol import (
    LogitsProcessor,
    Output,
    Progress,
    Sequence,
    Step,
    StepBuilder,
    TokenLogprobs,
    TokenMask,
)
from lmx_kernel.engine.sequences import check_sequence
from lmx_kernel.engine.token_runs import common
from lmx_kernel.types import EngineLimits, Sampling

MOST_FORCED = 32
"""Tokens that a mask may force in one step: other sequences wait while they are computed."""

NOT_FINITE = "the model computed numbers that are not finite"
"""Why a sequence fails whose logits are infinite or not numbers."""


@define(eq=False, kw_only=True)
class RunningSequence:
    """A sequence in an engine.

    :param request: as the engine got it.
    :param done: tokens that are computed and in the cache.
    :param cached: tokens that were taken from a cached prefix; None until it started.
    :ivar tokens: prompt and answer, as far as they were given out.
    :ivar drafter: of its drafts; None where it has no source of them.
    :ivar lead: by how many tokens it is ahead, see :class:`lmx_kernel.engine.drafting.Plan`.
    """

    request: Sequence
    done: int = 0
    cached: int | None = None
    tokens: list[int] = field(init=False)
    drafter: Drafter | None = field(init=False)
    lead: float = field(default=0.0, init=False)

    @drafter.default
    def _make_drafter(self) -> Drafter | None:
        """Processors of logits see the text token by token, so there are no drafts beside them."""
        source, model = self.request.drafts, self.request.draft_model
        is_none = bool(self.request.processors) or (source is None and model is None)
        return None if is_none else Drafter(source, model)

    @tokens.default
    def _copy_tokens(self) -> list[int]:
        return list(self.request.tokens)

    @property
    def id(self) -> int:
        """The id that the engine's caller gave it."""
        return self.request.id

    @property
    def sampling(self) -> Sampling:
        """How its tokens are chosen."""
        return self.request.sampling

    @property
    def mask(self) -> TokenMask | None:
        """What its next token may be; None for anything."""
        return self.request.mask

    @property
    def cache_space(self) -> str:
        """Whose sequences it may share computed tokens with."""
        return self.request.cache_space

    @property
    def processors(self) -> Mapping[str, LogitsProcessor]:
        """What changes its logits before each draw, by name."""
        return self.request.processors

    @property
    def alternatives(self) -> int | None:
        """How many likely tokens to report beside each chosen one; None for no logprobs at all."""
        return self.request.logprobs

    @property
    def proposal(self) -> list[int]:
        """What its source of drafts said before this step."""
        return self.drafter.proposal if self.drafter is not None else []

    @property
    def drafts(self) -> list[int]:
        """Tokens to compute after :attr:`tokens` in this step, to see whether they are drawn."""
        return self.drafter.drafts if self.drafter is not None else []

    @property
    def most_drafts(self) -> int:
        """How many drafts there may be in this step."""
        return self.drafter.most if self.drafter is not None else 0

    @property
    def share(self) -> float:
        """Of its proposals that were right."""
        return self.drafter.share if self.drafter is not None else FIRST_SHARE

    def may_go_on(self, drawn: Seq[int]) -> bool:
        """Return whether the place after the tokens ``drawn`` in this step was computed: each of
        them is the draft at its place, and the answer is not over.
        """
        if self.mask is not None and (self.mask.is_complete or self.mask.problem):
            return False
        count = len(drawn)
        return count <= len(self.drafts) and self.drafts[count - 1] == drawn[-1]

    @property
    def prompt_length(self) -> int:
        """Tokens it had when it was added: what counts as its prompt in progress reports."""
        return len(self.request.tokens)

    @property
    def in_prefill(self) -> bool:
        """Whether its prompt is not computed yet."""
        return self.done < len(self.request.tokens)

    @property
    def pending(self) -> int:
        """Tokens to compute before the next one can be chosen."""
        return len(self.tokens) - self.done


S = TypeVar("S", bound=RunningSequence)


@define(eq=False)
class RunningSet(Generic[S]):
    """The sequences of one engine, oldest first, and the report of its current step.

    Iterating yields a snapshot, so sequences may leave meanwhile.

    :param limits: of the engine.
    :param vocabulary: number of tokens.
    :param release: called with each sequence that failed or was preempted, after it left the set,
        to free what the engine holds for it; the second argument tells whether what was computed
        for it is sound and may serve it again.
    """

    limits: EngineLimits
    vocabulary: int
    release: Callable[[S, bool], None]
    _sequences: dict[int, S] = field(factory=dict, init=False)
    _report: StepBuilder = field(factory=StepBuilder, init=False)
    _turn: int = field(default=0, init=False)

    # --- joining and leaving

    def check(self, sequence: Sequence) -> None:
        """Refuse a sequence that must not reach native code.

        :raises InvalidRequestError: id, tokens or parameters are wrong, or too many run.
        :raises ContextOverflowError: longer than the context.
        """
        check_sequence(sequence, self._sequences, self.limits, self.vocabulary)

    def add(self, running: S) -> None:
        """Add a sequence whose request was checked."""
        self._sequences[running.id] = running

    def remove(self, sequence_id: int) -> S | None:
        """Take a sequence out and return it; None for an unknown id."""
        return self._sequences.pop(sequence_id, None)

    def clear(self) -> None:
        """Take all out."""
        self._sequences.clear()

    def __iter__(self) -> Iterator[S]:
        return iter(tuple(self._sequences.values()))

    def __contains__(self, running: RunningSequence) -> bool:
        return self._sequences.get(running.id) is running

    def __len__(self) -> int:
        return len(self._sequences)

    # --- one step

    def begin_step(self) -> None:
        """Start a new report; sequences whose context is full fail."""
        self._report = StepBuilder()
        for running in self:
            # the last token that fits needs no room of its own: nothing is computed after it
            if len(running.tokens) > self.limits.context_length:
                self.fail(running, "its context is full")

    def end_step(self) -> Step:
        """Return what was reported since :meth:`begin_step`."""
        return self._report.build()

    def report_progress(self, running: S) -> None:
        """Report how much of a prompt is computed."""
        total = running.prompt_length
        done = min(running.done, total)
        self._report.progress.append(Progress(running.id, done, total, running.cached or 0))

    def take_forced(self, running: S, least: int = 1, drawn: int = 1) -> list[int]:
        """Return the tokens that a mask forces after those that were just drawn and accepted, but
        not given out yet; the mask accepts them too.

        There are none where log-probabilities are asked for: each token needs a step of its own.

        :param least: fewer are left for the next steps.
        :param drawn: tokens that were drawn in this step.
        """
        if running.mask is None or running.alternatives is not None:
            return []
        room = self.limits.context_length + 1 - len(running.tokens) - drawn
        forced = running.mask.forced()[: max(min(room, MOST_FORCED), 0)]
        if len(forced) < least:
            return []
        running.mask.accept(forced)
        return forced

    def give_out(
        self, running: S, tokens: tuple[int, ...], logprobs: tuple[TokenLogprobs, ...] = ()
    ) -> None:
        """Report new tokens of a sequence, and append them to it. Of its drafts those are right
        that the tokens begin with.
        """
        drafted = running.drafter.settle(tokens) if running.drafter is not None else ()
        running.tokens += tokens
        self._report.outputs.append(Output(running.id, tokens, logprobs, *drafted))

    # --- prompts

    def in_turn(self, prompts: list[S]) -> list[S]:
        """Return ``prompts`` in the order in which to compute them.

        The oldest comes first, every other time the one with the least to compute: so a short
        prompt does not wait for long ones, and they wait for short ones half of the time at most.

        :param prompts: oldest first.
        """
        self._turn += bool(prompts)
        return prompts if self._turn % 2 else sorted(prompts, key=lambda one: one.pending)

    def older_prompts(self, new: S) -> Iterator[tuple[S, int]]:
        """Yield the prompts of the same cache space still being computed that came before ``new``,
        and how many tokens each shares with it; never all of them, since the last one's logits are
        needed.

        Waiting for one of these is safe: the oldest prompt never waits.
        """
        for other in self:
            if other is new:
                return
            if other.in_prefill and other.cache_space == new.cache_space:
                yield other, min(common(new.tokens, other.tokens), len(new.tokens) - 1)

    # --- trouble

    def fail(self, running: S, reason: str) -> None:
        """Give up a sequence, if it is still there.

        :param reason: the client reads it.
        """
        if self._sequences.pop(running.id, None) is not None:
            self.release(running, False)
            self._report.failed.append((running.id, reason))

    def preempt(self, running: S) -> None:
        """Take out a sequence; it is added again later with all its tokens so far."""
        del self._sequences[running.id]
        self.release(running, True)
        self._report.preempted.append(running.id)

    def make_room(self, claimants: Seq[S]) -> bool:
        """Preempt the youngest of ``claimants``; if there is only one, it fails.

        :param claimants: the sequences that hold a part of the full cache or need one now, oldest
            first.
        :returns: whether one was preempted.
        """
        if len(claimants) > 1:
            self.preempt(claimants[-1])
            return True
        for running in claimants:
            self.fail(running, f"the cache of {self.limits.cache_tokens} tokens is full")
        return False

    def fit_cache(self) -> None:
        """Preempt the youngest sequences until the others fit the cache in this step.

        For engines whose cache has no fixed cells; where it has, the library reports that there are
        no more, which is the time for :meth:`make_room`.
        """
        while self._cells_needed() > self.limits.cache_tokens:
            if not self.make_room([running for running in self if running.done]):
                return

    def has_room_for(self, new: S) -> bool:
        """Return whether a sequence fits the cache beside those that started; the oldest always may
        start.
        """
        if new is next(iter(self)):
            return True
        return self._cells_needed() + len(new.tokens) <= self.limits.cache_tokens

    @property
    def spare_cells(self) -> int:
        """What a step leaves of the cache."""
        return max(self.limits.cache_tokens - self._cells_needed(), 0)

    def _cells_needed(self) -> int:
        """Return what this step needs: of a prompt that began, the whole is counted."""
        limit = self.limits.context_length  # after the last token that fits, none is computed
        started = (running for running in self if running.done)
        return sum(min(max(one.done + 1, len(one.tokens)), limit) for one in started)
