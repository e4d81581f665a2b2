"""How much of which prompt a step computes. A pure decision."""

from __future__ import annotations

from collections.abc import Sequence

from lmx_gguf_backend.prefill_budget import LEAST_ROWS


def plan_prefill(remaining: Sequence[int], rows: int) -> list[int]:
    """Return how many of each prompt's ``remaining`` tokens to compute with ``rows`` rows in all.

    :param remaining: of prompts in the order in which they are served.
    """
    plan: list[int] = []
    for count in remaining:
        if count > rows:
            # a few rows of a prompt cost the overhead of a piece and gain nothing
            count = 0 if any(plan) and rows < LEAST_ROWS else rows  # noqa: PLW2901
        plan.append(count)
        rows -= count
    return plan
