"""What a running job reports, with a rate and the time that remains."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from lmx_kernel.jobs.rate_meter import RateMeter

PUBLISH_S = 1.0


class Progress:
    """Takes the reports of one job; see :class:`lmx_kernel.interfaces.Report`.

    :param update: is called with the job's new fields, and whether they are to be published, which
        is at most once a second.
    """

    def __init__(self, update: Callable[[Mapping[str, Any], bool], None]) -> None:
        self._update = update
        self._rate = RateMeter()
        self._published_at = 0.0

    def __call__(self, done: float, total: float | None = None, note: str = "") -> None:
        """Take a report."""
        now = time.monotonic()
        rate = self._rate.at(now, done)
        remaining = (total - done) / rate if total is not None and rate and rate > 0 else None
        is_due = now - self._published_at >= PUBLISH_S
        self._published_at = now if is_due else self._published_at
        values = {
            "done": done,
            "total": total,
            "note": note,
            "rate_per_s": rate,
            "remaining_s": remaining,
        }
        self._update(values, is_due)
