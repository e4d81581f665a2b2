"""Counts the events since the start."""

from __future__ import annotations

import platform

from prometheus_client import CollectorRegistry, Info

from lmx_kernel import __version__, events
from lmx_prometheus.jobs import Jobs
from lmx_prometheus.requests import Requests
from lmx_prometheus.samples import Samples
from lmx_prometheus.workers import Workers


class Metrics:
    """Counts events. Models are labelled by their catalogue ids, so a series continues when its
    model is unloaded and loaded again, and unknown names make no series.

    :ivar registry: the metrics.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Requests(self.registry)
        self._workers = Workers(self.registry)
        self._jobs = Jobs(self.registry)
        self._samples = Samples(self.registry)
        build = Info("lmx_build", "Versions of LMX and Python.", registry=self.registry)
        build.info({"version": __version__, "python": platform.python_version()})

    def count(self, event: events.KernelEvent) -> None:
        """Count an event; those without a metric are ignored."""
        match event:
            case events.RequestFinished():
                self._requests.ended(event)
            case events.RequestRefused():
                self._requests.refused(event)
            case events.ModelLoaded():
                self._workers.loaded(event)
            case events.LoadFailed():
                self._workers.load_failed(event)
            case events.ModelUnloaded():
                self._workers.unloaded(event)
            case events.WorkerCrashed():
                self._workers.crashed(event)
            case events.MemoryPressed():
                self._workers.pressed(event)
            case events.JobChanged():
                self._jobs.changed(event)
            case events.Sampled():
                self._samples.sampled(event)
