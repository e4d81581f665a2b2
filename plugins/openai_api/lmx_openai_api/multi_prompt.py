"""Several prompts answered as one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack

import attrs

from lmx_kernel.errors import LmxError
from lmx_kernel.interfaces import Answer, Kernel
from lmx_kernel.types import Admitted, Event, GenerationRequest, Usage

MAX_WAITING_EVENTS = 256


async def generate_all(kernel: Kernel, requests: Sequence[GenerationRequest]) -> Answer:
    """Return the one answer to all of ``requests``, which ask for the same number of candidates.

    :raises LmxError: one of them is refused; none is left running then.
    """
    if len(requests) == 1:
        return await kernel.generate(requests[0])
    with ExitStack() as stack:
        answers = [stack.enter_context(await kernel.generate(request)) for request in requests]
        return JointAnswer(answers, requests[0].candidates, stack.pop_all())


class JointAnswer(Answer):
    """Merges the answers to several prompts, as their events come.

    Candidate ``c`` of answer ``a`` becomes ``a * candidates + c``. Each answer has an ``Admitted``
    of its own. The first failure ends all.

    :param stack: closes the answers.
    """

    def __init__(self, answers: list[Answer], candidates: int, stack: ExitStack) -> None:
        self.id, self.model = answers[0].id, answers[0].model
        self._answers = answers
        self._stack = stack
        self._running = len(answers)
        self._queue: asyncio.Queue[Event | Exception | None] = asyncio.Queue(MAX_WAITING_EVENTS)
        self._pumps = [
            asyncio.create_task(self._pump(answer, index * candidates))
            for index, answer in enumerate(answers)
        ]

    async def next(self, timeout_s: float | None = None) -> Event | None:
        """Return the next event of any answer, or None if none came within ``timeout_s``.

        :raises LmxError: one of them failed.
        :raises StopAsyncIteration: all are complete.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._take()
        except TimeoutError:
            return None

    @property
    def fingerprint(self) -> str:
        """That of the first, as of all others: they are by one model."""
        return self._answers[0].fingerprint

    def usage(self) -> Usage:
        """Return what all of them cost so far."""
        return Usage.joined([answer.usage() for answer in self._answers])

    def close(self) -> None:
        """Cancel what still runs."""
        self.outcome = self.outcome or "cancelled"
        for pump in self._pumps:
            pump.cancel()
        self._stack.close()

    async def _take(self) -> Event:
        while self._running:
            item = await self._queue.get()
            if isinstance(item, Exception):
                self.outcome = item.code if isinstance(item, LmxError) else LmxError.code
                raise item
            if item is not None:
                return item
            self._running -= 1
        self.outcome = "ok"
        raise StopAsyncIteration

    async def _pump(self, answer: Answer, first: int) -> None:
        try:
            async for event in answer:
                shifted = event if isinstance(event, Admitted) else _shift(event, first)
                await self._queue.put(shifted)
            await self._queue.put(None)
        except Exception as error:  # noqa: BLE001 - raised where the answer is read
            await self._queue.put(error)


def _shift(event: Event, first: int) -> Event:
    assert not isinstance(event, Admitted)
    return attrs.evolve(event, candidate=event.candidate + first)
