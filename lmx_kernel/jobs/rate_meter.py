"""The rate of a progress, over the last seconds."""

from __future__ import annotations

from collections import deque

from attrs import define, field

WINDOW_S = 10.0


@define
class RateMeter:
    """Keeps the points of the last ten seconds."""

    _points: deque[tuple[float, float]] = field(factory=deque)

    def at(self, now: float, done: float) -> float | None:
        """Note that ``done`` units are done at ``now`` (monotonic seconds); return units a second.

        None before there are two points.
        """
        self._points.append((now, done))
        while now - self._points[0][0] > WINDOW_S and len(self._points) > 2:
            self._points.popleft()
        then, before = self._points[0]
        return (done - before) / (now - then) if now > then else None
