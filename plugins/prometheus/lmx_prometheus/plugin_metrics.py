"""The metrics of other plugins, as of a scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.core import (
    Metric as Family,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from lmx_kernel.interfaces import Metric


class PluginCollector(Collector):
    """Reads the metrics of all plugins at each scrape.

    :param metrics: returns them.
    """

    def __init__(self, metrics: Callable[[], Iterable[Metric]]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Family]:
        """Return a family for each metric, named ``lmx_PLUGIN_METRIC``."""
        return map(_family, self._metrics())


def _family(metric: Metric) -> Family:
    name = f"lmx_{metric.name}"
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(name, metric.text, labels=metric.labels)
        bounds = [*map(floatToGoString, metric.buckets), "+Inf"]
        for series in metric.series:
            pairs = list(zip(bounds, accumulate(series.counts), strict=True))
            histogram.add_metric(series.labels, pairs, series.value)
        return histogram
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    plain = kind(name, metric.text, labels=metric.labels)
    for series in metric.series:
        plain.add_metric(series.labels, series.value)
    return plain
