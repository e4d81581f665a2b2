"""How many prompt rows a step may carry, from measured times.

The cost of a row differs 100-fold between models and machines, so a fixed piece is either a stall
or a crawl. A whole step is timed, decoding beside the piece included, so pieces become smaller
beside many running streams by themselves.
"""

from __future__ import annotations

from attrs import define

STEP_S, ALONE_S = 0.3, 0.6
"""Running streams wait about that long; and where there are none, joining and cancelling.

CPU ms for a row of SmolLM2-135M in pieces of 32, 64, 96 and 256 rows, with one thread: 7.5, 5.6,
5.0 and 4.9.
"""

LEAST_ROWS, MOST_ROWS = 32, 512
WEIGHT = 0.25
"""Of a new measurement in the running mean."""


@define
class PrefillBudget:
    """A running mean of what a prompt row takes.

    :param row_s: seconds.
    """

    row_s: float

    def rows(self, *, is_alone: bool) -> int:
        """Return how many prompt rows the next step may carry.

        :param is_alone: no streams run.
        """
        seconds = ALONE_S if is_alone else STEP_S
        rows = int(seconds / self.row_s) // LEAST_ROWS * LEAST_ROWS
        return min(max(rows, LEAST_ROWS), MOST_ROWS)

    def observe(self, rows: int, seconds: float) -> None:
        """Take in what a step with ``rows`` prompt rows took."""
        if rows >= LEAST_ROWS:
            self.row_s += WEIGHT * (max(seconds / rows, 1e-6) - self.row_s)
