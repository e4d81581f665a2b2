"""Which rows are decoded in one batch.

A batch reads the weights once for all rows, but every row costs as much as the longest, to which
the others are padded. So two batches become one unless the padding would cost more than reading the
weights once more.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field

from lmx_mlx_backend.caches import Cache
from lmx_mlx_backend.group import Group, Row


@define(eq=False)
class Groups:
    """The batches of an engine.

    :param padding_cells: padding of one batch that costs as much as reading the weights once more.
    :param spare_cells: padding of all batches for which there is memory.
    :ivar is_split: a batch was left out when they were merged, since it had forced tokens.
    """

    padding_cells: int
    spare_cells: int
    all: list[Group] = field(factory=list, init=False)
    is_split: bool = field(default=False, init=False)

    def take_out(self, row: Row) -> Cache | None:
        """Take a row out of its batch and return its cache; None if it is in none."""
        group = next((group for group in self.all if row in group.rows), None)
        if group is None:
            return None
        if len(group.rows) > 1:
            return group.drop(row)
        self.all.remove(group)
        return group.cache

    def merge(self) -> None:
        """Make one batch of those that cost less together; one with forced tokens has to wait."""
        while True:
            groups = [group for group in self.all if not group.forced]
            self.is_split = len(groups) < len(self.all)
            lengths = [[row.done for row in group.rows] for group in groups]
            pair = plan_merge(lengths, self.padding_cells, self.spare_cells)
            if pair is None:
                return
            group, other = groups[pair[0]], groups[pair[1]]
            self.all.remove(other)
            group.absorb(other)


def padding(lengths: Sequence[int]) -> int:
    """Return the cells that a batch of rows of these lengths leaves empty."""
    return len(lengths) * max(lengths, default=0) - sum(lengths)


def plan_merge(
    groups: Sequence[Sequence[int]], group_limit: int, total_limit: int
) -> tuple[int, int] | None:
    """Return two groups to make one of, those that need the least padding; None to leave them.

    :param groups: the lengths of the rows of each.
    :param group_limit: padding of one batch that costs about as much as the weights, in cells.
    :param total_limit: padding of all batches for which there is memory, in cells.
    """
    total = sum(map(padding, groups))
    best: tuple[int, int, int] | None = None
    for a in range(len(groups)):
        for b in range(a + 1, len(groups)):
            union = padding([*groups[a], *groups[b]])
            added = union - padding(groups[a]) - padding(groups[b])
            fits = union <= group_limit and total + added <= total_limit
            if fits and (best is None or added < best[0]):
                best = added, a, b
    return best[1:] if best is not None else None
