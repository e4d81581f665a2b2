"""Whether a reproducible model's answers are the same, bit for bit, whatever happens around them.

Backends call :func:`differences` with a kernel that serves their model.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Sequence

from attrs import evolve, frozen

from lmx_kernel.testing.harness import RunningKernel
from lmx_kernel.types import GenerationRequest, SamplingRequest, TextDelta, TokenPrompt

TOKENS = 16
AT_ONCE = 8
ALTERNATIVES = 2
LONGEST = 600
SAMPLINGS = (
    SamplingRequest(temperature=0),
    SamplingRequest(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0),
    SamplingRequest(temperature=0.8, presence_penalty=1.0, frequency_penalty=0.5),
)


@frozen
class Trace:
    """An answer as its reader got it: tokens with their log-probabilities, and the fingerprint."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    fingerprint: str


@frozen
class Findings:
    """What came of the comparison.

    :param different: number and circumstance of each answer that was another one.
    :param cached_tokens: of all prompts.
    :param crashes: how many workers were killed.
    """

    different: list[tuple[int, str]]
    cached_tokens: int
    crashes: int


def _request(model: str, number: int, space: str) -> GenerationRequest:
    """Return request ``number``: of any length, and sampled in one of three ways."""
    dice = random.Random(number)
    words = [dice.randrange(3, 250) for _ in range(dice.choice((7, 40, 200)))]
    length = dice.choice((len(words), 3 * len(words)))  # said again: there is something to copy
    return GenerationRequest(
        model=model,
        prompt=TokenPrompt(tuple((words * 3)[: min(length, LONGEST)])),
        sampling=SamplingRequest(
            **SAMPLINGS[number % 3].given, seed=number, logit_bias={1: -100.0, 2: -100.0}
        ),
        max_tokens=TOKENS,
        logprobs=ALTERNATIVES,
        reproducible=True,
        cache_space=space,
    )


class _Runner:
    """Runs the requests under each circumstance, and counts."""

    def __init__(self, stage: RunningKernel, model: str) -> None:
        self._stage = stage
        self._model = model
        self._kill_in = 0
        self.cached_tokens = self.crashes = 0

    async def run(self, number: int, space: str, said: tuple[int, ...] = ()) -> Trace:
        """Return the answer to one request, or what follows the tokens that it ``said`` already."""
        request = evolve(_request(self._model, number, space), said=said)
        deltas: list[TextDelta] = []
        with await self._stage.kernel.generate(request) as answer:
            async for event in answer:
                if isinstance(event, TextDelta):
                    deltas.append(event)
                    self._count_down(len(event.tokens))
            self.cached_tokens += answer.usage().cached_tokens
            fingerprint = answer.fingerprint
        tokens = tuple(token for delta in deltas for token in delta.tokens)
        details = [one for delta in deltas for one in delta.logprobs]
        numbers = (value for one in details for value in (one.chosen, *one.top))
        return Trace(tokens, tuple(one.logprob for one in numbers), fingerprint)

    async def run_together(
        self, numbers: Sequence[int], space: str, kill_in: int = 0
    ) -> list[Trace]:
        """Return the answers to some requests at once.

        :param kill_in: the worker is killed after so many tokens of all of them; 0 is never.
        """
        self._kill_in = kill_in
        return list(await asyncio.gather(*(self.run(number, space) for number in numbers)))

    def _count_down(self, tokens: int) -> None:
        if self._kill_in > 0:
            self._kill_in -= tokens
            pid = self._stage.instance(self._model).pid
            if self._kill_in <= 0 and pid is not None:
                os.kill(pid, signal.SIGKILL)
                self.crashes += 1


async def differences(stage: RunningKernel, count: int, model: str) -> Findings:
    """Compare ``count`` answers of a model: alone, among seven others, cached, gone on with after a
    part of it, and some after SIGKILL.
    """
    runner, alone = _Runner(stage, model), []
    different: list[tuple[int, str]] = []
    for number in range(count):
        alone.append(await runner.run(number, f"alone {number}"))
        if await runner.run(number, f"alone {number}") != alone[number]:
            different.append((number, "cached"))
    groups = [range(start, min(start + AT_ONCE, count)) for start in range(0, count, AT_ONCE)]
    for kind, some in (("among others", groups), ("killed", groups[:1])):
        for group in some:
            kill_in = len(group) * TOKENS // 3 if kind == "killed" else 0
            found = await runner.run_together(group, kind, kill_in)
            pairs = zip(group, found, strict=True)
            different += [(number, kind) for number, trace in pairs if trace != alone[number]]
    for number, whole in enumerate(alone):
        said = whole.tokens[: number % TOKENS]
        rest = evolve(whole, tokens=whole.tokens[len(said) :],
                      logprobs=whole.logprobs[len(said) * (1 + ALTERNATIVES) :])  # fmt: skip
        if rest != await runner.run(number, f"resumed {number}", said):
            different.append((number, "gone on with"))
    return Findings(different, runner.cached_tokens, runner.crashes)
