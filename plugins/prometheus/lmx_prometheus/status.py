"""The state of the kernel at the time of a scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from lmx_kernel.interfaces import KernelStatus, KeyStatus, ModelStatus


class StatusCollector(Collector):
    """Reads the kernel's status at each scrape.

    :param status: returns the status.
    """

    def __init__(self, status: Callable[[], KernelStatus]) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        """Return what is known of the kernel, and of every model and every key that was used since
        the start.
        """
        status = self._status()
        yield from _kernel(status)
        yield from _models(status.models)
        yield from _keys(status.keys)


def _kernel(status: KernelStatus) -> Iterator[GaugeMetricFamily]:
    for name, text, value in (
        ("lmx_uptime_seconds", "Since the daemon started.", status.uptime_s),
        ("lmx_safe_mode", "1 in safe mode, after unclean starts.", status.safe_mode),
        ("lmx_memory_machine_bytes", "Memory of the machine.", status.memory_machine_bytes),
        ("lmx_memory_budget_bytes", "Memory that all models may use.", status.memory_budget_bytes),
        ("lmx_memory_reserved_bytes", "Memory reserved for workers.", status.memory_reserved_bytes),
        (
            "lmx_memory_available_bytes",
            "Memory that a load may use.",
            status.memory_available_bytes,
        ),
        (
            "lmx_memory_observed_bytes",
            "Memory that workers really use.",
            status.memory_observed_bytes,
        ),
    ):
        yield GaugeMetricFamily(name, text, value)
    pressure = GaugeMetricFamily(
        "lmx_memory_pressure", "1 for the current level: ease, soft or hard.", labels=["level"]
    )
    pressure.add_metric([status.memory_pressure], 1)
    yield pressure


def _models(models: Iterable[ModelStatus]) -> Iterator[GaugeMetricFamily]:
    def gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(name, text, labels=["model", *labels])

    state = gauge("lmx_model_state", "1 for the current state of a model.", "state")
    running = gauge("lmx_requests_running", "Requests that run.")
    waiting = gauge("lmx_requests_waiting", "Requests that are queued.")
    reserved = gauge("lmx_worker_reserved_bytes", "Memory reserved for a worker.")
    observed = gauge("lmx_worker_observed_bytes", "Last measured memory of a worker.")
    engine = gauge("lmx_engine_memory_bytes", "Memory held by the engine's own allocator.")
    cache = gauge("lmx_engine_cache_tokens", "Tokens of running requests and of the prefix cache.")
    details = gauge("lmx_engine_value", "Figures of an engine's own.", "name")
    for model in models:
        state.add_metric([model.id, model.state], 1)
        running.add_metric([model.id], model.running)
        waiting.add_metric([model.id], model.waiting)
        reserved.add_metric([model.id], model.memory_bytes)
        observed.add_metric([model.id], model.observed_bytes)
        if model.engine:
            engine.add_metric([model.id], model.engine.memory_bytes)
            cache.add_metric([model.id], model.engine.cache_tokens_used)
            for name, value in model.engine.details.items():
                details.add_metric([model.id, name], value)
    yield from (state, running, waiting, reserved, observed, engine, cache, details)


def _keys(keys: Iterable[KeyStatus]) -> Iterator[Metric]:
    unfinished = GaugeMetricFamily(
        "lmx_key_requests_open", "Requests of an API key that have not ended.", labels=["key"]
    )
    requests = CounterMetricFamily(
        "lmx_key_requests", "Requests of an API key that were queued.", labels=["key"]
    )
    tokens = CounterMetricFamily(
        "lmx_key_tokens",
        "Prompt tokens that were computed for an API key, and tokens of its answers.",
        labels=["key", "kind"],
    )
    for key in keys:
        unfinished.add_metric([key.name], key.open)
        requests.add_metric([key.name], key.requests)
        tokens.add_metric([key.name, "prompt"], key.prompt_tokens)
        tokens.add_metric([key.name, "completion"], key.completion_tokens)
    yield from (unfinished, requests, tokens)
