"""Jobs by kind and state."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from lmx_kernel.events import JobChanged

ENDED = ("done", "failed", "cancelled")


class Jobs:
    """Counts the open jobs by state, and the ended jobs by outcome."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ["kind", "state"]
        self._now = Gauge("lmx_jobs", "Jobs that have not ended.", labels, registry=registry)
        self._ended = Counter("lmx_jobs_ended", "Jobs that ended.", labels, registry=registry)
        self._known: dict[str, tuple[str, str]] = {}

    def changed(self, event: JobChanged) -> None:
        """Move a job from its previous state to its new one."""
        labels = (event.kind, event.state)
        if before := self._known.pop(event.id, None):
            self._now.labels(*before).dec()
        if event.state in ENDED:
            self._ended.labels(*labels).inc()
        else:
            self._now.labels(*labels).inc()
            self._known[event.id] = labels
