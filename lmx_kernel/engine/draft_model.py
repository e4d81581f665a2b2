"""A draft model: a smaller model of the same vocabulary, whose tokens another one checks.

It draws as the model that it drafts for would: with the same sampling, the same seed and for the
same places of the answer. So where both find the same tokens likely they mostly draw the same one,
above temperature 0 too. (Speculative decoding, arXiv 2211.17192; a draft is kept here only where it
is the token that is drawn anyway, so no other rule of acceptance is needed.)
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from collections.abc import Sequence as Seq
from typing import Any, Protocol

from attrs import define, field

from lmx_kernel.engine.draft_rows import DraftPiece, DraftRows
from lmx_kernel.engine.step_costs import StepCosts
from lmx_kernel.engine.token_runs import common
from lmx_kernel.types import Sampling

log = logging.getLogger("lmx.drafts")  # the standard library's: workers import no structlog

FIRST_SHARE = 0.8
"""Of the drafts of a model that were not checked yet; two models of a family agree about that."""

WEIGHT, MODEL_WEIGHT = 0.2, 0.02
"""Of a draft in the share of its sequence that was right, and in that of all sequences."""

RECOVERY = 0.0005
"""Of the way back to the first share with every token without drafts: so a model that was no good
is tried again some time.
"""

MOST_MODEL_DRAFTS = 8
"""Of one sequence in a step."""

MOST_PENDING = 16
"""Tokens that are read together with the next drafts; more are read in steps of their own."""

READ_ROWS = 64
"""Tokens that are read in such a step: others wait for that."""

RELAXED = 0.999
"""Of the costs of a model, with every step for which its drafts are too dear."""


class Sampler(Protocol):
    """Draws the tokens of one sequence."""

    def read(self, tokens: Seq[int]) -> None:
        """Count what comes before the next token."""
        ...

    def choose(self, logits: Any) -> int:
        """Return the next token."""
        ...


@define(eq=False)
class _Slot:
    """What a slot holds, and whose drafts they are; what nobody uses serves the next one."""

    number: int
    tokens: list[int] = field(factory=list)
    space: str = ""
    user: ModelDrafts | None = None


@define(eq=False)
class ModelDrafts:
    """The drafts of one sequence by a draft model.

    :param sampling: of the sequence.
    :param answer_start: place of the answer's first token among the sequence's tokens.
    :param cache_space: of the sequence: what was read for it serves this space only.
    :ivar share: of its drafts that were right.
    :ivar hoped_s: what drafts would have saved so far, as far as nothing was read for them.
    """

    model: DraftModel
    sampling: Sampling
    answer_start: int
    cache_space: str = ""
    share: float = field(init=False)
    hoped_s: float = field(default=0.0, init=False)
    slot: _Slot | None = field(default=None, init=False)
    _agreed: int = field(default=0, init=False)

    @share.default
    def _known_share(self) -> float:
        return self.model.share

    def pending(self, tokens: Seq[int]) -> int:
        """Return how many tokens are to be read before the next one can be drawn."""
        self.model.seat(self, tokens)
        return len(tokens) - self.agreed(tokens)

    def agreed(self, tokens: Seq[int]) -> int:
        """Return how many of ``tokens`` the slot holds: never all, since the last one's logits are
        wanted. Tokens that agreed once are not compared again.
        """
        if self.slot is None:
            return 0
        held, start = self.slot.tokens, self._agreed
        shared = start + common(held[start:], tokens[start:])
        self._agreed = min(shared, len(tokens) - 1)
        return self._agreed

    def take(self, slot: _Slot) -> None:
        """Use a slot from now on."""
        self.slot, self._agreed = slot, 0
        slot.user, slot.space = self, self.cache_space

    def learn(self, proposal: Seq[int], tokens: Seq[int]) -> None:
        """Compare what was proposed with what came."""
        for proposed, token in zip(proposal, tokens, strict=False):
            is_right = proposed == token
            self.share += WEIGHT * (is_right - self.share)
            self.model.share += MODEL_WEIGHT * (is_right - self.model.share)
            if not is_right:
                return

    def rest(self) -> None:
        """Note a step without drafts."""
        self.share += RECOVERY * (FIRST_SHARE - self.share)
        self.model.share += RECOVERY * (FIRST_SHARE - self.model.share)

    def forget(self) -> None:
        """Note that the slot holds nothing any more: reading it again must pay again."""
        self._agreed, self.hoped_s = 0, 0.0

    def close(self) -> None:
        """The sequence is over; what was read for it is kept as long as there is room."""
        if self.slot is not None:
            self.model.give_back(self.slot)
            self.slot = None


@define(eq=False)
class DraftModel:
    """A draft model and what it holds for sequences.

    :param name: the model's id in the catalogue.
    :param sampler: makes the sampler of a sequence, from its sampling, the size of the vocabulary
        and the tokens of the answer so far: :class:`lmx_kernel.engine.numpy_sampler.Sampler`.
    :ivar share: of its drafts that were right, of late.
    :ivar has_failed: whether it could not compute something; it drafts no more then.
    :ivar costs: what its steps take, by their rows.
    """

    name: str
    _rows: DraftRows
    _sampler: Callable[[Sampling, int, int], Sampler]
    share: float = field(default=FIRST_SHARE, init=False)
    has_failed: bool = field(default=False, init=False)
    costs: StepCosts = field(init=False)
    _slots: list[_Slot] = field(init=False)
    _followed_s: float = field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        self.costs = StepCosts(dict(self._rows.steps_s))
        self._slots = [_Slot(number) for number in range(self._rows.slots)]

    def can_read(self, tokens: Seq[int]) -> bool:
        """Return whether it can continue ``tokens``: its context may be shorter."""
        is_short = len(tokens) + MOST_MODEL_DRAFTS <= self._rows.context_length
        return is_short and not self.has_failed

    def round_s(self, count: int, sequences: int) -> float:
        """Return what ``count`` drafts of each of so many sequences take: what came last is read
        with the first one.
        """
        if not count or not sequences:
            return 0.0
        return self.costs.of(2 * sequences) + (count - 1) * self.costs.of(sequences)

    def follow(self, step_s: float) -> None:
        """Take its steps to have changed as much as those of the other model, since it may not have
        computed any for long.

        :param step_s: what a step of one row of the other one takes now.
        """
        if self._followed_s:
            self.costs.rescale(step_s / self._followed_s)
        self._followed_s = step_s

    def relax(self) -> None:
        """Seem a little cheaper, so that it is tried again some time: the last measurement may have
        been disturbed.
        """
        self.costs.rescale(RELAXED)

    def reading_s(self, tokens: int) -> float:
        """Return what reading so many tokens takes."""
        rows = min(tokens, READ_ROWS)
        return self.costs.of(rows) * tokens / max(rows, 1)

    def read(self, drafts: ModelDrafts, tokens: Seq[int]) -> None:
        """Read some of what is pending of a sequence, so that drafts may follow."""
        slot, start = drafts.slot, drafts.agreed(tokens)
        piece = tokens[start : min(start + READ_ROWS, len(tokens) - 1)]
        if slot is not None and piece and self._begin(slot, tokens, start):
            self._compute([DraftPiece(slot.number, piece, start, is_drawn=False)])

    def propose(self, asks: Seq[tuple[ModelDrafts, Seq[int], int]]) -> list[list[int]]:
        """Return drafts for several sequences, computed together: as many of each as the one that
        wants the most.

        :param asks: for each its drafts, its tokens so far, and how many are wanted.
        """
        found: list[list[int]] = [[] for _ in asks]
        pieces: dict[int, DraftPiece] = {}
        samplers = {}
        for place, (drafts, tokens, count) in enumerate(asks):
            slot, start = drafts.slot, drafts.agreed(tokens)
            if not count or slot is None or not self._begin(slot, tokens, start):
                continue
            pieces[place] = DraftPiece(slot.number, tokens[start:], start)
            produced = len(tokens) - drafts.answer_start
            samplers[place] = self._sampler(drafts.sampling, len(self._rows.token_bytes), produced)
            samplers[place].read(tokens)
        for _ in range(max((count for *_, count in asks), default=0)):
            rows = self._compute(list(pieces.values())) if pieces else None
            if rows is None:
                break
            for (place, piece), logits in zip(list(pieces.items()), rows, strict=True):
                token = samplers[place].choose(logits)
                found[place].append(token)
                pieces[place] = DraftPiece(piece.slot, [token], piece.position + len(piece.tokens))
        return found

    def seat(self, drafts: ModelDrafts, tokens: Seq[int]) -> None:
        """Give a sequence a slot, if it has none and one is free: the one that holds most of its
        tokens.
        """
        if drafts.slot is not None:
            return
        free = [slot for slot in self._slots if slot.user is None]
        own = [slot for slot in free if slot.space == drafts.cache_space]
        best = max(own, key=lambda slot: common(slot.tokens, tokens), default=None)
        if best is None or not common(best.tokens, tokens):
            best = next(iter(free), None)
        if best is not None:
            if best.space != drafts.cache_space:
                self._forget(best)
            drafts.take(best)

    def give_back(self, slot: _Slot) -> None:
        """Take a slot back; the one that was used last goes to another sequence last."""
        slot.user = None
        self._slots.remove(slot)
        self._slots.append(slot)

    def trim(self) -> None:
        """Forget what nobody uses."""
        for slot in self._slots:
            if slot.user is None:
                self._forget(slot)

    def close(self) -> None:
        """Free everything."""
        self._rows.close()

    def _begin(self, slot: _Slot, tokens: Seq[int], start: int) -> bool:
        """Let a slot hold the first ``start`` of ``tokens``, as it does, and nothing else."""
        if max(tokens[start:]) >= len(self._rows.token_bytes):
            return False
        if len(slot.tokens) > start and not self._rows.cut(slot.number, start):
            self._forget(slot)
            return False
        del slot.tokens[start:]
        return True

    def _compute(self, pieces: Seq[DraftPiece]) -> Seq[Any] | None:
        rows = sum(len(piece.tokens) for piece in pieces)
        if not self._has_room(rows):
            return None
        started_s = time.perf_counter()
        try:
            logits = self._rows.compute(pieces)
        except Exception:  # no answer may fail for want of drafts
            log.exception("the draft model %s failed", self.name)
            logits = None
        if logits is None:
            self.has_failed = True
            return None
        self.costs.observe(rows, time.perf_counter() - started_s)
        by_number = {slot.number: slot for slot in self._slots}
        for piece in pieces:
            by_number[piece.slot].tokens += piece.tokens
        return logits

    def _has_room(self, tokens: int) -> bool:
        """Make room for more tokens: what nobody uses goes, the one that was used first first."""
        for slot in [slot for slot in self._slots if slot.user is None]:
            if self._held_tokens + tokens <= self._rows.cache_tokens:
                break
            self._forget(slot)
        return self._held_tokens + tokens <= self._rows.cache_tokens

    @property
    def _held_tokens(self) -> int:
        return sum(len(slot.tokens) for slot in self._slots)

    def _forget(self, slot: _Slot) -> None:
        self._rows.cut(slot.number, 0)
        slot.tokens.clear()
        if slot.user is not None:
            slot.user.forget()
