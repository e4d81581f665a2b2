"""Metrics that a plugin declares, and how others read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from attrs import frozen


class Counter(Protocol):
    """A number that only grows."""

    def add(self, amount: float = 1, **labels: str) -> None:
        """Add to it; ``amount`` is not negative. A value for each label is needed."""
        ...


class Gauge(Protocol):
    """A number that goes up and down."""

    def set(self, value: float, **labels: str) -> None:
        """Set it. A value for each label is needed."""
        ...


class Histogram(Protocol):
    """How often values were how large."""

    def observe(self, value: float, **labels: str) -> None:
        """Count a value. A value for each label is needed."""
        ...


class Metrics(Protocol):
    """Declares the metrics of one plugin. Names and labels are lower case letters, digits and
    underscores; the plugin's name is put before them. Methods of metrics may be called from any
    thread, and are cheap.

    A name that is declared again gives the same metric; ValueError if it is declared otherwise.
    A metric has at most a thousand different values of its labels together; more are not counted.
    """

    def counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        """Return the counter of this name.

        :param text: what it counts, as a sentence.
        """
        ...

    def gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
        """Return the gauge of this name."""
        ...

    def histogram(
        self, name: str, text: str, buckets: Sequence[float], labels: Sequence[str] = ()
    ) -> Histogram:
        """Return the histogram of this name.

        :param buckets: their upper bounds, ascending; values above the last are counted too.
        """
        ...


@frozen(kw_only=True)
class MetricSeries:
    """A metric for one combination of its labels' values.

    :ivar value: of a histogram the sum of all values.
    :ivar counts: of a histogram, how many values are in each bucket and above the last one.
    """

    labels: tuple[str, ...]
    value: float
    counts: tuple[int, ...] = ()


@frozen(kw_only=True)
class Metric:
    """A metric as it stands now.

    :ivar name: begins with that of its plugin.
    :ivar kind: counter, gauge or histogram.
    :ivar labels: their names, in the order of the values in each series.
    :ivar buckets: upper bounds.
    """

    name: str
    kind: str
    text: str
    labels: tuple[str, ...]
    series: tuple[MetricSeries, ...]
    buckets: tuple[float, ...] = ()
