"""Statistics of each model since the start, from events."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection

from attrs import define, field, frozen

from lmx_kernel.events import (
    KernelEvent,
    LoadFailed,
    ModelLoaded,
    ModelUnloaded,
    RequestFinished,
    WorkerCrashed,
)
from lmx_kernel.interfaces import ModelFigures
from lmx_kernel.types import Usage

RECENT = 256
"""Times and speeds are those of so many of the last requests."""


@frozen(kw_only=True)
class Throughput:
    """The speed of a model; cheaper to compute than :class:`ModelFigures`.

    :ivar tokens_per_s: of one answer, on average; None if there was none.
    :ivar answer_s: the average duration of an answer; 0 if there was none.
    :ivar load_s: the duration of the last load; 0 if there was none.
    """

    tokens_per_s: float | None = None
    answer_s: float = 0.0
    load_s: float = 0.0


UNKNOWN_THROUGHPUT = Throughput()


@define
class _Tally:
    counts: defaultdict[str, int] = field(factory=lambda: defaultdict(int))
    load_s: float | None = None
    first_token_s: deque[float] = field(factory=lambda: deque(maxlen=RECENT))
    speeds: deque[float] = field(factory=lambda: deque(maxlen=RECENT))

    def finished(self, outcome: str, usage: Usage) -> None:
        self.counts["requests"] += 1
        self.counts["failures"] += outcome not in ("ok", "cancelled")
        self.counts["prompt_tokens"] += usage.prompt_tokens
        self.counts["cached_tokens"] += usage.cached_tokens
        self.counts["completion_tokens"] += usage.completion_tokens
        if usage.first_token_s is not None:
            self.first_token_s.append(usage.first_token_s)
            rest_s = usage.total_s - usage.first_token_s
            if usage.completion_tokens > 1 and rest_s > 0:
                self.speeds.append((usage.completion_tokens - 1) / rest_s)


class Statistics:
    """Counts events by model."""

    def __init__(self) -> None:
        self._tallies: defaultdict[str, _Tally] = defaultdict(_Tally)

    def on_event(self, event: KernelEvent) -> None:
        """Count an event; those that do not belong to a model are ignored."""
        if isinstance(event, RequestFinished):
            self._tallies[event.model].finished(event.outcome, event.usage)
        elif isinstance(event, ModelLoaded):
            tally = self._tallies[event.model]
            tally.counts["loads"] += 1
            tally.load_s = event.load_s
        elif isinstance(event, ModelUnloaded):
            self._tallies[event.model].counts["unloads"] += 1
        elif isinstance(event, LoadFailed):
            self._tallies[event.model].counts["load_failures"] += 1
        elif isinstance(event, WorkerCrashed):
            counts = self._tallies[event.model].counts
            counts["crashes"] += 1
            counts["resumed"] += event.resumed

    def throughput(self, model: str) -> Throughput:
        """Return the speed of a model."""
        tally = self._tallies.get(model)
        if tally is None:
            return UNKNOWN_THROUGHPUT
        speed = sum(tally.speeds) / len(tally.speeds) if tally.speeds else None
        length = tally.counts["completion_tokens"] / max(tally.counts["requests"], 1)
        return Throughput(
            tokens_per_s=speed,
            answer_s=length / speed if speed else 0.0,
            load_s=tally.load_s or 0.0,
        )

    def of(self, model: str) -> ModelFigures:
        """Return the statistics of a model."""
        tally = self._tallies.get(model)
        if tally is None:
            return ModelFigures()
        return ModelFigures(
            **tally.counts,
            load_s=tally.load_s,
            tokens_per_s=self.throughput(model).tokens_per_s,
            first_token_p50_s=_percentile(tally.first_token_s, 0.5),
            first_token_p95_s=_percentile(tally.first_token_s, 0.95),
        )


def _percentile(values: Collection[float], share: float) -> float | None:
    """Return the value that this share of ``values`` does not exceed."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else None
