"""How many drafts a step computes: as many as make it give out more tokens a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq
from functools import partial
from operator import add
from typing import Any

from attrs import define, frozen

from lmx_kernel.engine.draft_model import MOST_MODEL_DRAFTS, MOST_PENDING, ModelDrafts
from lmx_kernel.engine.drafter import MOST_SHARE, Drafter
from lmx_kernel.engine.running import RunningSequence, RunningSet
from lmx_kernel.engine.step_costs import MOST_ROWS, StepCosts

LEAST_GAIN = 1.05
"""Drafts must promise so many times the tokens a second: measurements are not exact."""

LEAST_OWN, MOST_LEAD = 0.9, 16.0
"""And each sequence must keep so much of its own rate: one with few drafts waits for the rows of
others. If it was quicker before, by so many tokens at most, it may be slower for a while.
"""

LEAST_CHANCE = 0.1
"""A draft that is less likely to be kept is not worth a thought."""

GOOD_SHARE = 0.8
"""Where drafts are as good as this and still do not pay, it is tried again some time."""


@frozen
class Plan:
    """How many drafts of each sequence are computed.

    :param tokens: that each sequence gets by that, as far as one can tell.
    :param owed: that it must get to keep :data:`LEAST_OWN` of its rate.
    :param took_s: what the step takes, drafts of models included.
    """

    counts: list[int]
    tokens: list[float]
    owed: float
    took_s: float

    @property
    def rate(self) -> float:
        """Tokens a second of all."""
        return sum(self.tokens) / self.took_s

    def leads(self, before: Seq[float]) -> list[float]:
        """Return by how many tokens each sequence is ahead of the rate that it must keep.

        :param before: by how many it was ahead before the step.
        """
        pairs = zip(before, self.tokens, strict=True)
        return [min(lead + tokens - self.owed, MOST_LEAD) for lead, tokens in pairs]


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
        drafters = [one.drafter for one in batch if one.drafter is not None]
        for one in batch:
            if one.drafter is not None:
                one.drafter.ask(one.tokens, running.vocabulary)
        is_full = len(running) >= max(running.limits.max_sequences, 2)
        if not drafters or is_full or any(one.in_prefill for one in running):
            return False
        models = {one.model.model for one in drafters if one.model is not None}
        for model in models:
            model.follow(self.costs.of(1))
        self._read(batch)
        room = running.limits.context_length
        most = [min(one.most_drafts, room - len(one.tokens)) for one in batch]
        if max(most) < 1:
            return False
        shares = [min(one.share, MOST_SHARE) for one in batch]
        price = partial(_model_s, [one.drafter for one in batch])
        leads = [one.lead for one in batch]
        best = best_plan(shares, most, self, running.spare_cells, price, leads)
        _propose(batch, best.counts, running.vocabulary)
        for one, count, lead in zip(batch, best.counts, best.leads(leads), strict=True):
            one.lead = lead
            if one.drafter is not None:
                one.drafter.drafts = one.proposal[:count]
        if not any(best.counts) and min(shares) >= GOOD_SHARE:
            self.costs.relax(len(batch))
            for model in models:
                model.relax()
        return any(drafter.drafts for drafter in drafters)

    def rows(self, counts: Seq[int]) -> int:
        """Return the rows of a step with so many drafts of each sequence."""
        return len(counts) * (1 + max(counts)) if self.is_padded else len(counts) + sum(counts)

    def _read(self, batch: Seq[RunningSequence]) -> None:
        """Let a draft model read some of one sequence that it has not read, if that pays: what
        drafts would have saved since it was added is what reading takes. So an answer that ends
        soon costs little, and a long one gains nearly all.
        """
        for one in batch:
            model = one.drafter.model if one.drafter is not None else None
            if model is None or not model.model.can_read(one.tokens):
                continue
            pending = model.pending(one.tokens)
            if pending > MOST_PENDING:
                model.hoped_s += self._saved_s(model)
                if model.hoped_s >= model.model.reading_s(pending):
                    model.model.read(model, one.tokens)
                    return

    def _saved_s(self, model: ModelDrafts) -> float:
        """Return what drafts of a model would save a sequence for each token, if it ran alone."""

        def price(counts: Seq[int]) -> float:
            return model.model.round_s(counts[0], 1)

        best = best_plan([model.share], [MOST_MODEL_DRAFTS], self, price=price)
        return max(self.costs.of(1) - 1 / best.rate, 0.0)


def _model_s(drafters: Seq[Drafter | None], counts: Seq[int]) -> float:
    """Return what draft models take for so many drafts of each sequence."""
    pairs = zip(drafters, counts, strict=True)
    asked = [(one.model, count) for one, count in pairs if one and one.is_model and count]
    if not asked or asked[0][0] is None:
        return 0.0
    return asked[0][0].model.round_s(max(count for _, count in asked), len(asked))


def _propose(batch: Seq[RunningSequence], counts: Seq[int], vocabulary: int) -> None:
    """Let the draft model propose so many tokens of each sequence, of all in one go."""
    asked = [
        (one.drafter, one.drafter.model, one.tokens, count)
        for one, count in zip(batch, counts, strict=True)
        if count and one.drafter is not None and one.drafter.is_model and one.drafter.model
    ]
    if asked:
        found = asked[0][1].model.propose([ask[1:] for ask in asked])
        for (drafter, *_), proposal in zip(asked, found, strict=True):
            drafter.propose(proposal, vocabulary)


def _free(_: Seq[int]) -> float:
    return 0.0


def best_plan(
    shares: Seq[float],
    most: Seq[int],
    drafting: Drafting,
    spare_cells: int = MOST_ROWS,
    price: Callable[[Seq[int]], float] = _free,
    leads: Seq[float] = (),
) -> Plan:
    """Return the plan that gives the most tokens a second and slows no sequence down.

    The n-th draft of a sequence is kept if it and all before it are right. So drafts are added in
    the order of that chance, and the best of these plans is taken.

    :param shares: of each sequence's drafts that are right.
    :param most: drafts of each.
    :param spare_cells: of the cache, beyond what the step takes without drafts.
    :param price: what it takes to make so many drafts of each, in seconds.
    :param leads: see :meth:`Plan.leads`; none at first.
    """
    leads, plain_s = leads or [0.0] * len(shares), drafting.costs.of(len(shares))
    best = Plan([0] * len(shares), [1.0] * len(shares), LEAST_OWN, plain_s)
    rate, most_rows = LEAST_GAIN * best.rate, min(drafting.most_rows, len(shares) + spare_cells)
    for counts, tokens in _by_chance(shares, most):
        rows = drafting.rows(counts)
        if rows > most_rows:
            break
        took_s = drafting.costs.of(rows) + price(counts)
        owed = LEAST_OWN * took_s / plain_s
        if min(map(add, leads, tokens)) >= owed and sum(tokens) > rate * took_s:
            best = Plan(list(counts), list(tokens), owed, took_s)
            rate = best.rate
    return best


def _by_chance(shares: Seq[float], most: Seq[int]) -> Iterator[tuple[list[int], list[float]]]:
    """Yield how many drafts there are of each sequence, and how many tokens each gets by that, with
    one draft more each time. Both lists are changed afterwards.
    """
    counts, chances, tokens = [0] * len(shares), list(shares), [1.0] * len(shares)
    while True:
        left = (place for place, count in enumerate(counts) if count < most[place])
        place = max(left, key=chances.__getitem__, default=-1)
        if place < 0 or chances[place] < LEAST_CHANCE:
            return
        counts[place] += 1
        tokens[place] += chances[place]
        chances[place] *= shares[place]
        yield counts, tokens
