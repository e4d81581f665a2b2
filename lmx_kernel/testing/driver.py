"""An engine driven by hand, for the tests of backends."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import Any

from attrs import define, field

from lmx_kernel.engine.protocol import Engine, Sequence, Step
from lmx_kernel.types import Sampling

GREEDY = Sampling(temperature=0, seed=1)
MAX_STEPS = 1000


@define
class Driver:
    """Steps an engine and collects what it gives out."""

    engine: Engine
    tokens: dict[int, list[int]] = field(factory=dict)
    steps: list[Step] = field(factory=list)

    def add(self, number: int, tokens: Seq[int], **more: Any) -> None:
        """Add a sequence; ``more`` goes into it."""
        fields: dict[str, Any] = {"produced": 0, "sampling": GREEDY} | more
        self.engine.add(Sequence(id=number, tokens=list(tokens), **fields))
        self.tokens[number] = []

    def step(self) -> Step:
        """Step once."""
        step = self.engine.step()
        self.steps.append(step)
        for output in step.outputs:
            self.tokens[output.id] += output.tokens
        return step

    def remove(self, number: int) -> None:
        """Remove a sequence."""
        self.engine.remove(number)

    def run(self, *numbers: int, count: int) -> list[list[int]]:
        """Step until each of ``numbers`` has ``count`` tokens; remove them; return the tokens."""
        for _ in range(MAX_STEPS):
            for number in numbers:
                if len(self.tokens[number]) >= count:
                    self.remove(number)
            if all(len(self.tokens[number]) >= count for number in numbers):
                return [self.tokens[number][:count] for number in numbers]
            step = self.step()
            assert not step.failed
            assert not step.preempted
        raise AssertionError("the engine does not get on")

    def answer(self, tokens: Seq[int], count: int, **more: Any) -> list[int]:
        """Return what follows ``tokens``."""
        number = len(self.tokens) + 1000
        self.add(number, tokens, **more)
        return self.run(number, count=count)[0]

    def cached(self, number: int) -> int:
        """Return how many tokens of a sequence's prompt were taken from the cache."""
        reports = [p for step in self.steps for p in step.progress if p.id == number]
        return reports[-1].cached
