"""How fast a model is on this machine: a kind of job."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from statistics import median
from typing import Annotated, Any

import attrs
from attrs import frozen
from msgspec import Meta

from lmx_kernel.interfaces import Kernel, Report
from lmx_kernel.types import GenerationRequest, SamplingRequest, TokenPrompt, Usage

BYTE_TOKENS = range(3, 256)  # plain text in any vocabulary


@frozen(kw_only=True)
class BenchmarkSpec:
    """What to measure.

    :ivar prompt_tokens: of each prompt; no two are alike, so that none is remembered.
    :ivar max_tokens: of each answer, which a model may end before.
    :ivar parallel: answers at once, beside the measurement of one alone.
    :ivar rounds: the median of so many counts.
    """

    model: Annotated[str, Meta(min_length=1, max_length=512)]
    prompt_tokens: Annotated[int, Meta(ge=1, le=10**6)] = 256
    max_tokens: Annotated[int, Meta(ge=2, le=10**5)] = 64
    parallel: Annotated[int, Meta(ge=1, le=256)] = 4
    rounds: Annotated[int, Meta(ge=1, le=100)] = 3


@frozen(kw_only=True)
class BenchmarkResult:
    """What was measured.

    :ivar first_token_s: from the request to its first token, alone.
    :ivar prompt_tokens_per_s: until then.
    :ivar tokens_per_s: after that, alone.
    :ivar parallel_tokens_per_s: of all answers at once together, their prompts included.
    """

    model: str
    first_token_s: float
    prompt_tokens_per_s: float
    tokens_per_s: float
    parallel_tokens_per_s: float


class Benchmarks:
    """Measures models, one after the other; the result is a :class:`BenchmarkResult`."""

    name = "benchmark"
    unit = "rounds"
    spec = BenchmarkSpec
    parallel = 1

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def key(self, spec: BenchmarkSpec) -> str:
        """Return the whole spec."""
        model = self._kernel.find(spec.model).id
        return f"{model} {spec.prompt_tokens}+{spec.max_tokens} x{spec.parallel} r{spec.rounds}"

    async def run(self, spec: BenchmarkSpec, report: Report) -> Mapping[str, Any]:
        """Measure. The model is loaded as any request would load it, and that is not counted.

        :raises LmxError: it cannot be loaded, or does not answer.
        """
        report(0, spec.rounds, "warming up")
        await self._ask(attrs.evolve(spec, max_tokens=2), seed=0)
        alone, together = [], []
        for number in range(spec.rounds):
            report(number, spec.rounds, "measuring")
            seed = 1 + number * (spec.parallel + 1)
            alone.append(await self._ask(spec, seed))
            together.append(await self._ask_together(spec, seed + 1))
        report(spec.rounds, spec.rounds)
        firsts = [(usage.first_token_s or usage.total_s) - usage.queue_s for usage in alone]
        result = BenchmarkResult(
            model=self._kernel.find(spec.model).id,
            first_token_s=median(firsts),
            prompt_tokens_per_s=spec.prompt_tokens / median(firsts),
            tokens_per_s=median(map(_tokens_per_s, alone)),
            parallel_tokens_per_s=median(together),
        )
        return attrs.asdict(result)

    async def discard(self, spec: BenchmarkSpec) -> None:
        """Nothing is left behind."""

    async def _ask(self, spec: BenchmarkSpec, seed: int) -> Usage:
        tokens = random.Random(seed).choices(BYTE_TOKENS, k=spec.prompt_tokens)
        request = GenerationRequest(
            model=spec.model,
            prompt=TokenPrompt(tuple(tokens)),
            sampling=SamplingRequest(temperature=0),
            max_tokens=spec.max_tokens,
        )
        with await self._kernel.generate(request) as answer:
            async for _ in answer:
                pass
            return answer.usage()

    async def _ask_together(self, spec: BenchmarkSpec, seed: int) -> float:
        """Return the tokens a second of all answers together."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._ask(spec, seed + n)) for n in range(spec.parallel)]
        tokens = sum(task.result().completion_tokens for task in tasks)
        return tokens / (time.monotonic() - began)


def _tokens_per_s(usage: Usage) -> float:
    rest_s = usage.total_s - (usage.first_token_s or 0)
    return (usage.completion_tokens - 1) / rest_s if rest_s > 0 else 0.0
