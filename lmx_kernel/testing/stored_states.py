"""Conversations whose states an engine finds on disk, compared to those of an engine that computes
everything: for the tests and benchmarks of backends.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from collections.abc import Sequence as Seq
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from attrs import define, field

from lmx_kernel.engine.protocol import Engine, Sequence, Step
from lmx_kernel.prefixes.store import PrefixStore
from lmx_kernel.testing.driver import GREEDY, Driver
from lmx_kernel.testing.harness import RunningKernel
from lmx_kernel.testing.near_ties import is_near_tie
from lmx_kernel.types import GenerationRequest, SamplingRequest, TextDelta, TokenPrompt
from lmx_kernel.worker.prefix_guard import PrefixGuard
from lmx_kernel.worker.state_keeper import Fetched

WAIT_S = 60.0
TURNS = 3
SAID = 12


class StoredDriver(Driver):
    """Steps an engine as a worker's loop does, with a store on disk.

    :param folder: of all models.
    """

    def __init__(self, engine: Engine, folder: Path) -> None:
        super().__init__(engine)
        self.warnings: list[str] = []
        self._read: SimpleQueue[Fetched] = SimpleQueue()
        store = PrefixStore.open(
            folder,
            "model",
            b"stored states...",
            limit_bytes=1 << 30,
            ttl_s=0,
            warn=self.warnings.append,
        )
        self.guard = PrefixGuard(engine, store, self._read.put)

    def add(self, number: int, tokens: Seq[int], **more: Any) -> None:
        """Add a sequence, once what there is of it on disk was loaded."""
        fields: dict[str, Any] = {"produced": 0, "sampling": GREEDY} | more
        sequence = Sequence(id=number, tokens=list(tokens), **fields)
        if self.guard.begin(sequence):
            while sequence not in self.guard.take(self._read.get(timeout=WAIT_S)):
                pass
        self.engine.add(sequence)
        self.tokens[number] = []

    def step(self) -> Step:
        """Step once, and store what the step completed."""
        step = super().step()
        self.guard.stepped(step)
        return step

    def remove(self, number: int) -> None:
        """Remove a sequence, and store the rest of it."""
        self.guard.end(number)
        super().remove(number)
        self.guard.removed()

    def forget(self) -> None:
        """Write what waits to be written, and let the engine forget its prefixes."""
        self.guard.close()
        self.engine.trim()


@define
class Compared:
    """What became of some conversations.

    :ivar equal: answers that are the same as without a store.
    :ivar ties: those that part from it at a near-tie.
    :ivar wrong: all others, each as the number of its conversation.
    :ivar recomputed: tokens of turns after the first that were computed though an earlier turn had
        them; the most of one turn.
    """

    equal: int = 0
    ties: int = 0
    wrong: list[int] = field(factory=list)
    recomputed: int = 0


def compare_conversations(
    driver: StoredDriver, plain: Driver, count: int, vocabulary: int, lose: Callable[[], None]
) -> Compared:
    """Hold ``count`` conversations, each turn of which finds what it has on disk only.

    :param plain: another engine on the same model.
    :param vocabulary: tokens from 3 on that prompts are made of.
    :param lose: called after each turn.
    """
    found = Compared()
    for number in range(count):
        dice = random.Random(number)
        tokens = _words(dice, dice.randrange(260, 420), vocabulary)
        before = 0
        for turn in range(TURNS):
            key = (number + 1) * TURNS + turn
            driver.add(key, tokens)
            [said] = driver.run(key, count=SAID)
            if turn:
                found.recomputed = max(found.recomputed, before - driver.cached(key))
            expected = plain.answer(tokens, SAID, cache_space=f"{key}")
            if said == expected:
                found.equal += 1
            elif is_near_tie(plain, tokens, (expected, said), GREEDY):
                found.ties += 1
            else:
                found.wrong.append(number)
            before = len(tokens) + SAID - 1
            tokens = [*tokens, *said, *_words(dice, 40, vocabulary)]
            lose()
    return found


def _words(dice: random.Random, count: int, vocabulary: int) -> list[int]:
    return [dice.randrange(3, vocabulary) for _ in range(count)]


async def greedy_answer(stage: RunningKernel, tokens: Seq[int]) -> tuple[str, int]:
    """Return what the model "model" of a kernel says after ``tokens``, and how many were cached."""
    request = GenerationRequest(
        model="model",
        prompt=TokenPrompt(tuple(tokens)),
        sampling=SamplingRequest(temperature=0),
        max_tokens=16,
    )
    return await answer_to(stage, request)


async def answer_to(stage: RunningKernel, request: GenerationRequest) -> tuple[str, int]:
    """Return the text of the answer to a request, and how many tokens of the prompt were cached."""
    with await stage.kernel.generate(request) as answer:
        parts = [event.text async for event in answer if isinstance(event, TextDelta)]
    return "".join(parts), answer.usage().cached_tokens
