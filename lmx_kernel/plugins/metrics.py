"""The metrics of a plugin: what it counted since it was loaded."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import pairwise
from threading import Lock

import structlog
from attrs import define, field

from lmx_kernel.interfaces import Counter, Gauge, Histogram, Metric, Metrics, MetricSeries

MOST_SERIES = 1000
NAME = re.compile(r"[a-z][a-z0-9_]*")
RESERVED = "le"
"""The label that formats of metrics use for the bounds of buckets."""
log = structlog.get_logger(__name__)


@define(eq=False)
class _Recorded:
    """A metric of any kind. Each series is a list: its value, then the counts of its buckets."""

    name: str
    kind: str
    text: str
    labels: tuple[str, ...]
    buckets: tuple[float, ...] = ()
    _series: dict[tuple[str, ...], list[float]] = field(factory=dict)
    _lock: Lock = field(factory=Lock)
    _is_full: bool = False

    def add(self, amount: float = 1, **labels: str) -> None:
        if amount < 0:
            raise ValueError(f"{self.name} only grows")
        self._change(labels, amount)

    def set(self, value: float, **labels: str) -> None:
        self._change(labels, value, is_total=True)

    def observe(self, value: float, **labels: str) -> None:
        self._change(labels, value, bucket=bisect_left(self.buckets, value))

    def read(self) -> Metric:
        """Return it as it stands."""
        with self._lock:
            series = tuple(
                MetricSeries(labels=key, value=value, counts=tuple(map(int, counts)))
                for key, (value, *counts) in self._series.items()
            )
        return Metric(
            name=self.name,
            kind=self.kind,
            text=self.text,
            labels=self.labels,
            series=series,
            buckets=self.buckets,
        )

    def _change(
        self,
        labels: Mapping[str, str],
        value: float,
        *,
        is_total: bool = False,
        bucket: int | None = None,
    ) -> None:
        value = float(value)  # or what is no number would fail where metrics are read
        if labels.keys() != set(self.labels):
            raise ValueError(f"{self.name} has the labels {', '.join(self.labels) or 'none'}")
        key = tuple(str(labels[name]) for name in self.labels)
        with self._lock:
            if (row := self._row(key)) is None:
                return
            row[0] = value if is_total else row[0] + value
            if bucket is not None:
                row[1 + bucket] += 1

    def _row(self, key: tuple[str, ...]) -> list[float] | None:
        if key not in self._series and len(self._series) >= MOST_SERIES:
            if not self._is_full:
                self._is_full = True
                log.warning("metric_full", metric=self.name, series=MOST_SERIES)
            return None
        counts = len(self.buckets) + 1 if self.kind == "histogram" else 0
        return self._series.setdefault(key, [0.0] * (1 + counts))


class PluginMetrics(Metrics):
    """The metrics of one plugin; see :class:`Metrics`."""

    def __init__(self, plugin: str) -> None:
        self._prefix = re.sub(r"[^a-z0-9_]", "_", plugin.lower())
        self._metrics: dict[str, _Recorded] = {}

    def counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        return self._declare("counter", name, text, labels)

    def gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
        return self._declare("gauge", name, text, labels)

    def histogram(
        self, name: str, text: str, buckets: Sequence[float], labels: Sequence[str] = ()
    ) -> Histogram:
        if not buckets or any(low >= high for low, high in pairwise(buckets)):
            raise ValueError(f"{name}: the bounds of buckets must ascend")
        return self._declare("histogram", name, text, labels, tuple(map(float, buckets)))

    def read(self) -> list[Metric]:
        """Return all metrics as they stand."""
        return [metric.read() for metric in list(self._metrics.values())]

    def _declare(
        self,
        kind: str,
        name: str,
        text: str,
        labels: Sequence[str],
        buckets: tuple[float, ...] = (),
    ) -> _Recorded:
        for one in (name, *labels):
            if not NAME.fullmatch(one) or one == RESERVED:
                raise ValueError(f"{one!r} cannot name a metric or a label")
        new = _Recorded(f"{self._prefix}_{name}", kind, text, tuple(labels), buckets)
        old = self._metrics.setdefault(name, new)
        if (old.kind, old.labels, old.buckets) != (kind, new.labels, buckets):
            raise ValueError(f"{new.name} is declared otherwise already")
        return old
