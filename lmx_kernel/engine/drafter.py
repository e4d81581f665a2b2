"""The drafts of one sequence, and how good they have been."""

from __future__ import annotations

from collections.abc import Sequence as Seq

from attrs import define, field

from lmx_kernel.engine.draft_model import MOST_MODEL_DRAFTS, MOST_PENDING, ModelDrafts
from lmx_kernel.engine.drafts import DraftSource

MOST_DRAFTS = 15
"""Of one sequence in a step."""

FIRST_SHARE, MOST_SHARE = 0.5, 0.98
WEIGHT = 0.2
"""Of a new token in the running share of proposals that were right."""


@define(eq=False)
class Drafter:
    """Asks a source before each step and compares what it said with what came, whether it was
    computed or not: so it costs nothing to learn that a source has become good. A draft model costs
    time: it is asked when it is known how many drafts of it pay.

    :ivar proposal: what the better of the two said before this step.
    :ivar drafts: as much of it as is computed in this step.
    :ivar is_model: whether it is the draft model that is better.
    """

    _source: DraftSource | None
    model: ModelDrafts | None = None
    proposal: list[int] = field(factory=list, init=False)
    drafts: list[int] = field(factory=list, init=False)
    is_model: bool = field(default=False, init=False)
    _source_share: float = field(default=FIRST_SHARE, init=False)
    _said: list[int] = field(factory=list, init=False)

    @property
    def share(self) -> float:
        """What share of the better one's proposals was right."""
        return self.model.share if self.is_model and self.model else self._source_share

    @property
    def most(self) -> int:
        """How many drafts there may be."""
        return MOST_MODEL_DRAFTS if self.is_model else len(self.proposal)

    def ask(self, tokens: Seq[int], vocabulary: int) -> None:
        """Ask the source what follows ``tokens``; it is not computed yet.

        :param vocabulary: number of tokens; what lies outside must not reach native code.
        """
        said = self._source.propose(tokens, MOST_DRAFTS) if self._source is not None else []
        self.proposal, self.drafts = _within(said[:MOST_DRAFTS], vocabulary), []
        self._said = self.proposal
        self.is_model = self._is_model_better(tokens)

    def propose(self, proposal: Seq[int], vocabulary: int) -> None:
        """Take what the draft model proposes."""
        self.proposal = self.drafts = _within(proposal, vocabulary)

    def settle(self, tokens: Seq[int]) -> tuple[int, int, str]:
        """Take in what came, and return how many drafts were computed, how many were right, and
        which model made them.
        """
        computed, right, name = len(self.drafts), _right(self.drafts, tokens), ""
        if self.model is not None:
            if self.is_model and computed:
                self.model.learn(self.proposal, tokens)
                name = self.model.model.name
            else:
                self.model.rest()
        for proposed, token in zip(self._said, tokens, strict=False):
            self._source_share += WEIGHT * ((proposed == token) - self._source_share)
            if proposed != token:
                break
        self.proposal, self.drafts, self._said = [], [], []
        return computed, right, name

    def _is_model_better(self, tokens: Seq[int]) -> bool:
        model = self.model
        if model is None or not model.model.can_read(tokens):
            return False
        is_less = not self.proposal or self._source_share < model.share
        return is_less and model.pending(tokens) <= MOST_PENDING


def _within(proposal: Seq[int], vocabulary: int) -> list[int]:
    """Return what comes before the first token that does not exist."""
    wrong = (n for n, token in enumerate(proposal) if not 0 <= token < vocabulary)
    return list(proposal[: next(wrong, len(proposal))])


def _right(drafts: Seq[int], tokens: Seq[int]) -> int:
    """Return how many drafts, the first ones, are what came."""
    pairs = zip(drafts, tokens, strict=False)
    wrong = (n for n, (draft, token) in enumerate(pairs) if draft != token)
    return next(wrong, min(len(drafts), len(tokens)))
