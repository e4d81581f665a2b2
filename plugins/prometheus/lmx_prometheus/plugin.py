"""The hooks of this plugin."""

from __future__ import annotations

from lmx_kernel.events import KernelEvent
from lmx_kernel.hookspecs import hookimpl
from lmx_kernel.interfaces import ApiSurface, Kernel
from lmx_prometheus.metrics import Metrics
from lmx_prometheus.status import StatusCollector
from lmx_prometheus.surface import MetricsSurface


class Plugin:
    """The hooks of one kernel: what one of them counts, the other shows."""

    def __init__(self) -> None:
        self._metrics = Metrics()

    @hookimpl
    def lmx_event(self, event: KernelEvent) -> None:
        """Count it."""
        self._metrics.take(event)

    @hookimpl
    def lmx_api_surfaces(self, kernel: Kernel) -> list[ApiSurface]:
        """Return the page ``/metrics``."""
        self._metrics.registry.register(StatusCollector(kernel.status))
        return [MetricsSurface(self._metrics.registry)]


def __getattr__(name: str) -> Plugin:
    """Return a new plugin each time that the entry point is loaded: each kernel has its own."""
    if name == "plugin":
        return Plugin()
    raise AttributeError(name)
