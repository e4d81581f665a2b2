"""How much prefill a step may carry, from measured times.

The cost of a row differs 100-fold between models, so a fixed piece is either a stall or a crawl.
And it jumps at a tile: with at least ``TILE_ROWS`` rows in a step the library reads the cache once
for all of them. Measured in CPU ms per prompt row on SmolLM2-135M Q4_1, beside 4 decode rows which
alone take 36 (at a depth of 64 | 512 | 1408 tokens): 16 rows 8.4 | 8.2 | 13.8, 32 rows 8.6 | 8.1 |
15.3, tile 6.3 | 6.5 | 8.4, 128 rows 6.0 | 6.9 | 9.0. So pieces are tiles where those do not take
too long, and after each one running streams get steps of their own, in proportion.

Large pieces pay too: on two quiet threads a prompt takes 12 % longer in tiles than in pieces of 512
rows. A prompt that computes alone gets them where they can be interrupted.
"""

from __future__ import annotations

from attrs import define, field

ALONE_S = 0.25
"""Of a step with nothing but prefill: joining and cancelling wait that long."""

LONG_S = 2.0
"""Of such a step if it can be interrupted: so much may be lost then."""

TILE_S = 1.0
"""A tile may take this long: half of its rows would take hardly less."""

LONG_TILE_S = 8.0
"""And so long if it can be interrupted."""

MOST_STEPS, FEW_STEPS = 4, 2
"""Prefill beside running streams may take this many times their step; the second where steps are
so long that the first exceeds ``ALONE_S``."""

DECODE_SHARE = 0.3
"""Time that running streams get to themselves for each second of prefill."""

TILE_ROWS = 64
LEAST_ROWS = 8

WEIGHT = 0.25
"""Of a new measurement in the running mean."""


@define
class PrefillBudget:
    """Running means of what steps and prompt rows take, and what prefill owes to the streams.

    :param row_s: seconds that a prompt row takes in a small piece.
    :param tile_row_s: and in a tile or more.
    """

    row_s: float
    tile_row_s: float
    _steps_s: dict[int, float] = field(factory=dict)
    _owed_s: float = 0.0
    _long_s: float = LONG_S

    def rows_alone(self) -> int:
        """Return how many rows of a prompt the next step may carry that can be interrupted."""
        if self._long_s <= ALONE_S or self.tile_row_s * TILE_ROWS > LONG_TILE_S:
            return self.rows(0)
        return max(whole(int(self._long_s / self.tile_row_s)), TILE_ROWS)

    def expected_s(self, rows: int) -> float:
        """Return what a step with so many rows, of prompts alone, takes."""
        return rows * (self.tile_row_s if rows >= TILE_ROWS else self.row_s)

    def interrupted(self) -> None:
        """Let the next steps that can be interrupted be short, each twice as long as the one
        before: so most of what is computed is kept, however often somebody interrupts.
        """
        self._long_s = ALONE_S

    def rows(self, running: int) -> int:
        """Return how many prompt rows the next step may carry beside ``running`` decode rows."""
        if not running:
            self._owed_s = 0.0
        elif self._owed_s > self._step_s(running) / 2:
            return 0
        limit_s = self._limit_s(running)
        if min(self.tile_row_s, self.row_s) * TILE_ROWS > TILE_S:
            return whole(int(limit_s / self.row_s))
        return max(whole(int(limit_s / self.tile_row_s)), TILE_ROWS - running, LEAST_ROWS)

    def _limit_s(self, running: int) -> float:
        if not running:
            return ALONE_S
        step_s = self._step_s(running)
        return min(MOST_STEPS * step_s, max(ALONE_S, FEW_STEPS * step_s))

    def observe(self, running: int, prefill: int, seconds: float) -> None:
        """Take in what a step of ``running`` decode and ``prefill`` prompt rows took."""
        if not prefill:
            self._steps_s[running] = _mean(self._steps_s.get(running, seconds), seconds)
            self._owed_s = max(self._owed_s - seconds, 0.0)
            return
        if not running:
            self._long_s = min(2 * self._long_s, LONG_S)
        decode_s = self._step_s(running) if running else 0.0
        prefill_s = max(seconds - decode_s, 0.0)
        self._owed_s += max(DECODE_SHARE * prefill_s - decode_s, 0.0)
        row_s = max(prefill_s / prefill, 1e-6)
        if running + prefill >= TILE_ROWS:
            self.tile_row_s = _mean(self.tile_row_s, row_s)
        elif prefill >= LEAST_ROWS:
            self.row_s = _mean(self.row_s, row_s)

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
