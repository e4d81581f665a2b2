"""Metrics of workers."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Summary

from lmx_kernel.events import LoadFailed, MemoryPressed, ModelLoaded, ModelUnloaded, WorkerCrashed


class Workers:
    """Counts loads, unloads and crashes, and the memory pressure that may have caused them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        self._loads = Summary("lmx_load_seconds", "Loads.", ["model"], registry=registry)
        self._failures = counter("lmx_load_failures", "Loads that failed.", "model", "code")
        self._unloads = counter("lmx_unloads", "Unloads, evictions included.", "model", "reason")
        self._crashes = counter("lmx_worker_crashes", "Workers that died or hung.", "model")
        self._resumed = counter(
            "lmx_resumed_streams", "Answers that were resumed after a crash.", "model"
        )
        self._failed = counter("lmx_failed_streams", "Answers that failed after a crash.", "model")
        self._pressure = counter(
            "lmx_memory_pressure_changes", "Changes of memory pressure, by the new level.", "level"
        )
        self._kills = counter(
            "lmx_memory_kills", "Workers killed to relieve memory pressure.", "model"
        )

    def loaded(self, event: ModelLoaded) -> None:
        """Count a load."""
        self._loads.labels(event.model).observe(event.load_s)

    def load_failed(self, event: LoadFailed) -> None:
        """Count a load that failed."""
        self._failures.labels(event.model, event.code).inc()

    def unloaded(self, event: ModelUnloaded) -> None:
        """Count an unload."""
        self._unloads.labels(event.model, event.reason).inc()

    def crashed(self, event: WorkerCrashed) -> None:
        """Count a crash, and the answers that were in flight."""
        self._crashes.labels(event.model).inc()
        self._resumed.labels(event.model).inc(event.resumed)
        self._failed.labels(event.model).inc(event.failed)

    def pressed(self, event: MemoryPressed) -> None:
        """Count a change of memory pressure, and the worker that was killed, if any."""
        self._pressure.labels(event.level).inc()
        if event.worker:
            self._kills.labels(event.worker).inc()
