"""How much prefill a step may carry, from measured times.

The cost of a row differs 100-fold between models, so a fixed piece is either a stall or a crawl.
"""

from __future__ import annotations

from attrs import define, field

ALONE_S = 0.2
"""Of a step with nothing but prefill: a cancel takes that long."""

SLOWDOWN = 4.2
"""A step with prefill may take this many times one without: running streams keep flowing."""

LEAST_ROWS = 8
TILE_ROWS = 64
"""The library computes multiples of this faster than what lies between."""

WEIGHT = 0.25
"""Of a new measurement in the running mean."""


@define
class Pace:
    """Running means of what steps and prefill rows take, in seconds."""

    row_s: float
    _steps_s: dict[int, float] = field(factory=dict)

    def rows(self, running: int) -> int:
        """Return how many prefill rows a step may carry beside ``running`` decode rows."""
        limit_s = ALONE_S
        if running:
            limit_s = min(limit_s, (SLOWDOWN - 1) * self._step_s(running))
        rows = max(int(limit_s / self.row_s), LEAST_ROWS)
        return whole(rows)

    def observe(self, running: int, prefill: int, seconds: float) -> None:
        """Take in what a step of ``running`` decode and ``prefill`` prompt rows took."""
        if not prefill:
            self._steps_s[running] = _mean(self._steps_s.get(running, seconds), seconds)
        elif prefill >= LEAST_ROWS:
            rest_s = seconds - (self._step_s(running) if running else 0)
            self.row_s = max(_mean(self.row_s, rest_s / prefill), 1e-6)

    def _step_s(self, running: int) -> float:
        """Return what a step without prefill takes, from the nearest number of rows measured."""
        if not self._steps_s:
            return self.row_s * running
        nearest = min(self._steps_s, key=lambda known: abs(known - running))
        return self._steps_s[nearest]


def whole(rows: int) -> int:
    """Round down to a number of rows that the library computes well."""
    step = TILE_ROWS if rows >= TILE_ROWS else LEAST_ROWS
    return max(rows // step * step, LEAST_ROWS)


def _mean(mean: float, value: float) -> float:
    return mean + WEIGHT * (value - mean)
