"""What a step takes by its rows, as measured."""

from __future__ import annotations

from bisect import bisect_left, insort

from attrs import define, field

MOST_ROWS = 64
"""Larger steps are not measured: drafts never make them."""

SCALE_WEIGHT, SHAPE_WEIGHT = 0.25, 0.1
"""Of a new measurement: most of what changes (other processes, longer texts) changes all steps."""

RELAXED = 0.99


@define
class StepCosts:
    """The time of steps, from their number of rows: linear between those that were measured, and
    in proportion beyond.

    :param shape: seconds by rows, as measured when the model was loaded; at least for one number.
    """

    _shape: dict[int, float]
    _scale: float = 1.0
    _rows: list[int] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._rows = sorted(self._shape)

    def of(self, rows: int) -> float:
        """Return what a step of ``rows`` rows takes, in seconds."""
        return self._scale * self._shape_of(rows)

    def observe(self, rows: int, seconds: float) -> None:
        """Take in what a step took. One of other rows is taken to have changed as much, so that
        those that were not computed for long stay comparable.
        """
        if not 0 < rows <= MOST_ROWS:
            return
        shape = self._shape_of(rows)
        change = min(max(seconds / (shape * self._scale), 0.5), 2.0) - 1  # outliers count less
        if rows not in self._shape:
            insort(self._rows, rows)
        self._shape[rows] = shape * (1 + SHAPE_WEIGHT * change)
        self._scale *= 1 + SCALE_WEIGHT * change

    def rescale(self, factor: float) -> None:
        """Take all steps to have changed by ``factor``."""
        self._scale *= factor

    def relax(self, rows: int) -> None:
        """Let larger steps than ``rows`` seem a little cheaper, so that they are tried again some
        time: the last measurement may have been disturbed.
        """
        for more in self._rows:
            if more > rows:
                self._shape[more] = max(RELAXED * self._shape[more], self._shape_of(rows))

    def _shape_of(self, rows: int) -> float:
        place = bisect_left(self._rows, rows)
        if place == len(self._rows):
            last = self._rows[-1]
            return self._shape[last] * rows / last
        more = self._rows[place]
        if more == rows or not place:
            return self._shape[more]
        less = self._rows[place - 1]
        slope = (self._shape[more] - self._shape[less]) / (more - less)
        return self._shape[less] + slope * (rows - less)
