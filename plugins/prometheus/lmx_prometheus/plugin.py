"""The hooks of this plugin."""

from __future__ import annotations

from lmx_kernel.events import KernelEvent
from lmx_kernel.hookspecs import hookimpl
from lmx_kernel.interfaces import ApiSurface, Kernel
from lmx_prometheus.metrics import Metrics
from lmx_prometheus.plugin_metrics import PluginCollector
from lmx_prometheus.status import StatusCollector
from lmx_prometheus.surface import MetricsSurface


class Plugin:
    """The hooks of one kernel: one counts events, the other serves the metrics."""

    def __init__(self) -> None:
        self._metrics = Metrics()

    @hookimpl
    def lmx_event(self, event: KernelEvent) -> None:
        """Count an event."""
        self._metrics.count(event)

    @hookimpl
    def lmx_api_surfaces(self, kernel: Kernel) -> list[ApiSurface]:
        """Return the surface that serves ``/metrics``."""
        self._metrics.registry.register(StatusCollector(kernel.status))
        self._metrics.registry.register(PluginCollector(kernel.metrics))
        return [MetricsSurface(self._metrics.registry)]


def __getattr__(name: str) -> Plugin:
    """Return a new plugin each time the entry point is loaded, so that each kernel has its own."""
    if name == "plugin":
        return Plugin()
    raise AttributeError(name)
