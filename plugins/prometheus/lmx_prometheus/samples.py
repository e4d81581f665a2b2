"""The last samples of monitors."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from lmx_kernel.events import Sampled


class Samples(Collector):
    """The last sample of each monitor. Figures that are not in it are not exported any more."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._last: dict[str, dict[str, float]] = {}
        registry.register(self)

    def sampled(self, event: Sampled) -> None:
        """Replace the monitor's previous sample."""
        self._last[event.monitor] = event.values

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return the figures of all monitors."""
        family = GaugeMetricFamily(
            "lmx_monitor_value",
            "Figures of the last sample of a monitor.",
            labels=["monitor", "name"],
        )
        for monitor, values in self._last.copy().items():
            for name, value in values.items():
                family.add_metric([monitor, name], value)
        yield family
