"""What monitors saw last."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from lmx_kernel.events import Sampled


class Samples(Collector):
    """The last sample of each monitor. A figure that is not in it is not shown any more."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._last: dict[str, dict[str, float]] = {}
        registry.register(self)

    def sampled(self, event: Sampled) -> None:
        """Keep a sample in place of the one before."""
        self._last[event.monitor] = event.values

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return the figures of all monitors."""
        family = GaugeMetricFamily(
            "lmx_monitor_value", "What a monitor saw last.", labels=["monitor", "name"]
        )
        for monitor, values in self._last.copy().items():
            for name, value in values.items():
                family.add_metric([monitor, name], value)
        yield family
