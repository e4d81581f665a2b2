"""How often a worker may die before it is left alone."""

from __future__ import annotations

from collections import deque

from attrs import define, field

MAX_CRASHES = 3
WINDOW_S = 60.0
COOLING_S = 60.0


@define
class Breaker:
    """Trips after three crashes within a minute, and opens again a minute later."""

    _crashes: deque[float] = field(factory=lambda: deque(maxlen=MAX_CRASHES))
    _until: float = 0.0

    def crashed(self, now: float) -> bool:
        """Note a crash at ``now`` (monotonic seconds); return whether it was one too many."""
        self._crashes.append(now)
        return len(self._crashes) == MAX_CRASHES and now - self._crashes[0] <= WINDOW_S

    def trip(self, now: float) -> None:
        """Leave the model alone for a while."""
        self._crashes.clear()
        self._until = now + COOLING_S

    def cooling_s(self, now: float) -> float:
        """Return for how many seconds the model is left alone; 0 if it is not."""
        return max(0.0, self._until - now)
