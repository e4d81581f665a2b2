"""How often a worker may die before its model is left alone."""

from __future__ import annotations

from collections import deque

from attrs import define, field

MAX_CRASHES = 3
WINDOW_S = 60.0
COOLING_S = 60.0
MAX_LOST_LOADS = 2

MAX_IN_A_ROW = 7
"""A request that is at fault costs two crashes, and clients repeat a failed request twice."""


@define
class Breaker:
    """Trips after three crashes within a minute, two in a row before the model was loaded, or seven
    in a row between which no request got anywhere. A minute later the model may be loaded again.
    Crashes that turn out to be the fault of one request, which is given up, do not count among the
    three. All times are monotonic seconds.
    """

    _crashes: deque[float] = field(factory=lambda: deque(maxlen=MAX_CRASHES))
    _in_a_row: int = 0
    _lost_loads: int = 0
    _until: float = 0.0

    def loaded(self) -> None:
        """Note that a worker loaded the model."""
        self._lost_loads = 0

    def crashed(
        self,
        now: float,
        *,
        while_loading: bool = False,
        has_worked: bool = False,
        explained: int = 0,
    ) -> bool:
        """Note a crash; return whether it was one too many, so that the model is left alone.

        :param has_worked: a request got somewhere since the crash before.
        :param explained: so many crashes, this one included, were the fault of a request.
        """
        self._crashes.append(now)
        for _ in range(min(explained, len(self._crashes))):
            self._crashes.pop()
        self._in_a_row = 1 if has_worked else self._in_a_row + 1
        self._lost_loads += while_loading
        is_full = len(self._crashes) == MAX_CRASHES and now - self._crashes[0] <= WINDOW_S
        is_hopeless = self._in_a_row >= MAX_IN_A_ROW or self._lost_loads >= MAX_LOST_LOADS
        if not is_full and not is_hopeless:
            return False
        self._crashes.clear()
        self._in_a_row = 0
        self._until = now + COOLING_S
        return True

    def cooling_s(self, now: float) -> float:
        """Return for how many seconds the model is left alone; 0 if it is not."""
        return max(0.0, self._until - now)
