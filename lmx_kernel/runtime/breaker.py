"""How often a worker may die before its model is left alone."""

from __future__ import annotations

from collections import deque

from attrs import define, field

MAX_CRASHES = 3
WINDOW_S = 60.0
COOLING_S = 60.0
MAX_LOST_LOADS = 2


@define
class Breaker:
    """Trips after three crashes within a minute, or two in a row before the model was loaded. A
    minute later the model may be loaded again. All times are monotonic seconds.
    """

    _crashes: deque[float] = field(factory=lambda: deque(maxlen=MAX_CRASHES))
    _lost_loads: int = 0
    _until: float = 0.0

    def loaded(self) -> None:
        """Note that a worker loaded the model."""
        self._lost_loads = 0

    def crashed(self, now: float, *, while_loading: bool) -> bool:
        """Note a crash; return whether it was one too many, so that the model is left alone."""
        self._crashes.append(now)
        self._lost_loads += while_loading
        is_full = len(self._crashes) == MAX_CRASHES and now - self._crashes[0] <= WINDOW_S
        if not is_full and self._lost_loads < MAX_LOST_LOADS:
            return False
        self._crashes.clear()
        self._until = now + COOLING_S
        return True

    def cooling_s(self, now: float) -> float:
        """Return for how many seconds the model is left alone; 0 if it is not."""
        return max(0.0, self._until - now)
