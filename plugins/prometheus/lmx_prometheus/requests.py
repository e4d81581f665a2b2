"""Metrics of requests and their tokens."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from lmx_kernel.events import RequestFinished, RequestRefused

WAIT_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
TOKEN_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2)


class Requests:
    """Counts requests by outcome, and measures their times."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, ["model", *labels], registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, text, ["model"], buckets=buckets, registry=registry)

        self._ended = counter(
            "lmx_requests",
            "Ended requests; outcome is ok, cancelled or an error's code.",
            "outcome",
        )
        self._prompt = counter("lmx_prompt_tokens", "Tokens of prompts, cached ones included.")
        self._cached = counter(
            "lmx_cached_tokens", "Tokens of prompts that were in the prefix cache."
        )
        self._generated = counter("lmx_generated_tokens", "Tokens of answers.")
        self._drafts = counter(
            "lmx_draft_tokens", "Guessed tokens that were computed beside those that were due."
        )
        self._accepted = counter(
            "lmx_accepted_draft_tokens", "Guessed tokens that were right: they came without a step."
        )
        self._queue = histogram(
            "lmx_queue_time_seconds", "From the arrival of a request to its start.", WAIT_BUCKETS_S
        )
        self._first = histogram(
            "lmx_time_to_first_token_seconds",
            "From the arrival of a request to its first token.",
            WAIT_BUCKETS_S,
        )
        self._next = histogram(
            "lmx_time_per_output_token_seconds",
            "From one token to the next, averaged over the answer.",
            TOKEN_BUCKETS_S,
        )

    def refused(self, event: RequestRefused) -> None:
        """Count a request that was refused before it was queued."""
        self._ended.labels(event.model, event.code).inc()

    def ended(self, event: RequestFinished) -> None:
        """Count a request that ended in any way."""
        model, usage = event.model, event.usage
        self._ended.labels(model, event.outcome).inc()
        self._prompt.labels(model).inc(usage.prompt_tokens)
        self._cached.labels(model).inc(usage.cached_tokens)
        self._generated.labels(model).inc(usage.completion_tokens)
        self._drafts.labels(model).inc(usage.draft_tokens)
        self._accepted.labels(model).inc(usage.accepted_draft_tokens)
        self._queue.labels(model).observe(usage.queue_s)
        if usage.first_token_s is not None:
            self._first.labels(model).observe(usage.first_token_s)
            if usage.completion_tokens > 1:
                rest_s = usage.total_s - usage.first_token_s
                self._next.labels(model).observe(rest_s / (usage.completion_tokens - 1))
