"""Which prompts a step computes, and how much of each. Pure decisions."""

from __future__ import annotations

from collections.abc import Sequence

from lmx_gguf_backend.prefill_budget import LEAST_ROWS


def plan_prefill(remaining: Sequence[int], rows: int, turn: int) -> list[tuple[int, int]]:
    """Share ``rows`` among prompts with ``remaining`` tokens each, the oldest first.

    Every other turn the shortest goes first, so it does not wait for long ones, and they for it
    at most half of the time.

    :returns: pairs of an index into ``remaining`` and a number of its next tokens.
    """
    order = list(range(len(remaining)))
    if turn % 2:
        order.sort(key=lambda index: remaining[index])
    plan: list[tuple[int, int]] = []
    for index in order if rows else ():
        count = remaining[index]
        if count > rows:
            # a crumb of a prompt costs a row's overhead and gains nothing
            count = 0 if plan and rows < LEAST_ROWS else rows
        if count:
            plan.append((index, count))
            rows -= count
    return plan
