"""What a conversion kept, and what it cost."""

from __future__ import annotations

import re
from pathlib import Path

from attrs import frozen


@frozen(kw_only=True)
class Cost:
    """What one tensor cost that could not be kept as it is.

    :ivar name: GGUF's.
    :ivar source, stored: types, such as Q6_K and float16.
    :ivar max_error: the largest difference to the file's number.
    :ivar rms_error: the root mean square of the differences, relative to the numbers'.
    """

    name: str
    source: str
    stored: str
    size_before: int
    size_after: int
    max_error: float
    rms_error: float

    @property
    def group(self) -> tuple[str, str, str]:
        """The same for tensors that differ in nothing but the layer."""
        return re.sub(r"^blk\.\d+\.", "blk.*.", self.name), self.source, self.stored


@frozen(kw_only=True)
class Report:
    """A finished conversion.

    :ivar tensors: how many there are.
    :ivar costs: those that are not bit for bit what they were, or lie unpacked.
    """

    target: Path
    architecture: str
    tensors: int
    costs: tuple[Cost, ...]
    size_before: int
    size_after: int

    @property
    def is_lossless(self) -> bool:
        """Whether every number is the file's."""
        return not any(cost.max_error for cost in self.costs)

    def groups(self) -> list[tuple[Cost, int]]:
        """Return the costs with the layers summed up, each with the number of its tensors."""
        groups: dict[tuple[str, str, str], list[Cost]] = {}
        for cost in self.costs:
            groups.setdefault(cost.group, []).append(cost)
        return [(_sum(name, costs), len(costs)) for (name, _, _), costs in groups.items()]


def _sum(name: str, costs: list[Cost]) -> Cost:
    return Cost(
        name=name,
        source=costs[0].source,
        stored=costs[0].stored,
        size_before=sum(cost.size_before for cost in costs),
        size_after=sum(cost.size_after for cost in costs),
        max_error=max(cost.max_error for cost in costs),
        rms_error=max(cost.rms_error for cost in costs),
    )
