"""The drafts of one sequence, and how good they have been."""

from __future__ import annotations

from collections.abc import Sequence as Seq

from attrs import define, field

from lmx_kernel.engine.drafts import DraftSource

MOST_DRAFTS = 15
"""Of one sequence in a step."""

FIRST_SHARE, MOST_SHARE = 0.5, 0.98
WEIGHT = 0.2
"""Of a new token in the running share of proposals that were right."""


@define(eq=False)
class Drafter:
    """Asks a source before each step and compares what it said with what came, whether it was
    computed or not: so it costs nothing to learn that a source has become good.

    :ivar share: of the proposed tokens that were right.
    :ivar proposal: what the source said before this step.
    :ivar drafts: as much of it as is computed in this step.
    """

    _source: DraftSource
    share: float = field(default=FIRST_SHARE, init=False)
    proposal: list[int] = field(factory=list, init=False)
    drafts: list[int] = field(factory=list, init=False)

    def ask(self, tokens: Seq[int], vocabulary: int) -> None:
        """Ask the source what follows ``tokens``; it is not computed yet.

        :param vocabulary: number of tokens; what lies outside must not reach native code.
        """
        proposal = self._source.propose(tokens, MOST_DRAFTS)
        wrong = (n for n, token in enumerate(proposal) if not 0 <= token < vocabulary)
        self.proposal, self.drafts = proposal[: next(wrong, MOST_DRAFTS)], []

    def settle(self, tokens: Seq[int]) -> tuple[int, int]:
        """Take in what came, and return how many drafts were computed and how many were right."""
        right = 0
        for proposed, token in zip(self.proposal, tokens, strict=False):
            self.share += WEIGHT * ((proposed == token) - self.share)
            if proposed != token:
                break
            right += 1
        computed = len(self.drafts)
        self.proposal, self.drafts = [], []
        return computed, min(right, computed)
