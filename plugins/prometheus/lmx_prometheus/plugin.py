"""The hooks of this plugin."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

from lmx_kernel.hookspecs import hookimpl

if TYPE_CHECKING:
    from lmx_kernel.events import KernelEvent
    from lmx_kernel.interfaces import ApiSurface, Kernel
    from lmx_prometheus.metrics import Metrics


class Plugin:
    """The hooks of one kernel: one counts events, the other serves the metrics."""

    def __init__(self) -> None:
        self._lock = Lock()  # both hooks are called in threads of their own
        self._made: Metrics | None = None

    @property
    def _metrics(self) -> Metrics:
        from lmx_prometheus.metrics import Metrics  # noqa: PLC0415 - commands count nothing

        with self._lock:
            self._made = self._made or Metrics()
        return self._made

    @hookimpl
    def lmx_event(self, event: KernelEvent) -> None:
        """Count an event."""
        self._metrics.count(event)

    @hookimpl
    def lmx_api_surfaces(self, kernel: Kernel) -> list[ApiSurface]:
        """Return the surface that serves ``/metrics``."""
        from lmx_prometheus.plugin_metrics import PluginCollector  # noqa: PLC0415 - as above
        from lmx_prometheus.status import StatusCollector  # noqa: PLC0415 - as above
        from lmx_prometheus.surface import MetricsSurface  # noqa: PLC0415 - as above

        self._metrics.registry.register(StatusCollector(kernel.status))
        self._metrics.registry.register(PluginCollector(kernel.metrics))
        return [MetricsSurface(self._metrics.registry)]


def __getattr__(name: str) -> Plugin:
    """Return a new plugin each time the entry point is loaded, so that each kernel has its own."""
    if name == "plugin":
        return Plugin()
    raise AttributeError(name)
