"""Answers of an engine with all their numbers, to be compared bit for bit."""

from __future__ import annotations

from typing import Any

from lmx_kernel.testing.driver import Driver
from lmx_kernel.types import Sampling

COUNT = 12
SAMPLED = Sampling(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, seed=5)
Trace = tuple[list[int], list[float]]


def trace(driver: Driver, number: int) -> Trace:
    """Return the tokens of a sequence and, bit for bit, the log-probabilities of each."""
    outputs = [one for step in driver.steps for one in step.outputs if one.id == number]
    tokens = [token for one in outputs for token in one.tokens][:COUNT]
    details = [detail for one in outputs for detail in one.logprobs][:COUNT]
    return tokens, [number for one in details for number in (one.chosen, *dict(one.top).values())]


def answer(driver: Driver, number: int, prompt: list[int], **more: Any) -> Trace:
    """Return what follows ``prompt``."""
    driver.add(number, prompt, sampling=SAMPLED, logprobs=3, **more)
    driver.run(number, count=COUNT - more.get("produced", 0))
    return trace(driver, number)
