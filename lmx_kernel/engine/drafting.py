"""How many drafts a step computes: as many as make it give out more tokens a second."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import Any

from attrs import define

from lmx_kernel.engine.drafter import MOST_SHARE
from lmx_kernel.engine.running import RunningSequence, RunningSet
from lmx_kernel.engine.step_costs import MOST_ROWS, StepCosts

LEAST_GAIN = 1.05
"""Drafts must promise so many times the tokens a second: measurements are not exact."""

LEAST_CHANCE = 0.1
"""A draft that is less likely to be kept is not worth a thought."""

GOOD_SHARE = 0.8
"""Where drafts are as good as this and still do not pay, it is tried again some time."""


@define(eq=False)
class Drafting:
    """Plans the drafts of an engine's steps.

    :param costs: what steps take; the engine lets it observe those without prefill.
    :param most_rows: of a step, drafts included.
    :param is_padded: whether every sequence in a batch takes as many rows as the one with the most.
    """

    costs: StepCosts
    most_rows: int = MOST_ROWS
    is_padded: bool = False

    def plan(self, batch: Seq[RunningSequence], running: RunningSet[Any]) -> bool:
        """Choose the drafts of ``batch``, which :attr:`RunningSequence.drafts` has then.

        There are none while prompts are computed, nor where every slot is taken: others want the
        rows.

        :param running: all sequences of the engine.
        :returns: whether there are any.
        """
        for one in batch:
            if one.drafter is not None:
                one.drafter.ask(one.tokens, running.vocabulary)
        room = running.limits.context_length
        most = [min(len(one.proposal), room - len(one.tokens)) for one in batch]
        is_full = len(running) >= max(running.limits.max_sequences, 2)
        if is_full or max(most, default=0) < 1 or any(one.in_prefill for one in running):
            return False
        shares = [min(one.share, MOST_SHARE) for one in batch]
        counts = best_counts(shares, most, self, running.spare_cells)
        for one, count in zip(batch, counts, strict=True):
            if one.drafter is not None:
                one.drafter.drafts = one.proposal[:count]
        if not any(counts) and max(shares) >= GOOD_SHARE:
            self.costs.relax(len(batch))
        return any(counts)

    def rows(self, counts: Seq[int]) -> int:
        """Return the rows of a step with so many drafts of each sequence."""
        return len(counts) * (1 + max(counts)) if self.is_padded else len(counts) + sum(counts)


def best_counts(
    shares: Seq[float], most: Seq[int], drafting: Drafting, spare_cells: int = MOST_ROWS
) -> list[int]:
    """Return how many drafts of each sequence give the most tokens a second.

    The n-th draft of a sequence is kept if it and all before it are right. So drafts are added in
    the order of that chance, and the best of these plans is taken.

    :param shares: of each sequence's drafts that are right.
    :param most: drafts of each.
    :param spare_cells: of the cache, beyond what the step takes without drafts.
    """
    counts, chances, tokens = [0] * len(shares), list(shares), float(len(shares))
    best, rate = list(counts), LEAST_GAIN * tokens / drafting.costs.of(len(shares))
    most_rows = min(drafting.most_rows, len(shares) + spare_cells)
    while True:
        left = (place for place, count in enumerate(counts) if count < most[place])
        place = max(left, key=chances.__getitem__, default=-1)
        if place < 0 or chances[place] < LEAST_CHANCE:
            return best
        counts[place] += 1
        tokens += chances[place]
        chances[place] *= shares[place]
        rows = drafting.rows(counts)
        if rows > most_rows:
            return best
        if tokens / drafting.costs.of(rows) > rate:
            best, rate = list(counts), tokens / drafting.costs.of(rows)
