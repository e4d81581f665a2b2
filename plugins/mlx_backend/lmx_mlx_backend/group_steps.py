"""Advancing a batch: by a token of each row, or by drafts."""

from __future__ import annotations

import time
from collections.abc import Callable

import mlx.core as mx
from attrs import define

from lmx_kernel.engine.drafting import Drafting
from lmx_kernel.engine.running import RunningSet
from lmx_mlx_backend.graph_builder import GraphBuilder
from lmx_mlx_backend.group import Group, Row, Token


@define(eq=False)
class GroupSteps:
    """How the batches of an engine are advanced.

    :param ahead: the next step is computed while the last is read.
    :param drafting: how many drafts are computed; None where the caches cannot take them back.
    :param builder: builds the graph of the next step while the last is computed, if not ``ahead``.
    """

    ahead: bool
    drafting: Drafting | None = None
    builder: GraphBuilder | None = None

    def advance(
        self, group: Group, model: Callable[..., mx.array], running: RunningSet[Row]
    ) -> list[list[Token]]:
        """Compute a step of a batch, and return the tokens of each row that can be read now.

        Drafts are for what follows the last token, so those of a batch that is ahead wait for it.
        """
        if self.drafting is None:
            return group.advance(model, ahead=self.ahead, builder=self.builder)
        drafts, started_s = self.drafting.plan(group.rows, running), time.perf_counter()
        counts = [len(row.drafts) for row in group.rows]
        is_measured = not group.forced and group.is_ahead == (self.ahead and not drafts)
        if drafts and is_measured:
            drawn = group.check_drafts(model)
        else:
            for row in group.rows:
                row.drafts.clear()
            ahead = self.ahead and not drafts
            drawn = group.advance(model, ahead=ahead, builder=self.builder)
        if is_measured:
            rows, took_s = self.drafting.rows(counts), time.perf_counter() - started_s
            self.drafting.costs.observe(rows, took_s)
        return drawn

    def close(self) -> None:
        """End the thread that builds."""
        if self.builder is not None:
            self.builder.close()
