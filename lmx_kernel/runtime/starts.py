"""Starts candidates on a worker and puts them out, as is decided elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator

from lmx_kernel.config import Settings
from lmx_kernel.runtime.admission import MayStart, plan_admissions
from lmx_kernel.runtime.answer import Candidate, LiveAnswer
from lmx_kernel.runtime.attached_worker import AttachedWorker
from lmx_kernel.runtime.preemption import Preemption, plan_preemption
from lmx_kernel.runtime.request_queue import RequestQueue
from lmx_kernel.runtime.settings import QueueSettings
from lmx_kernel.runtime.shares import Shares
from lmx_kernel.runtime.suspects import Suspects


class Starts:
    """Carries out what :mod:`.admission` and :mod:`.preemption` decide for one queue.

    :param numbers: yields the next wire id.
    :param prepare: called with requests that are to be prepared anew.
    :param look_again: called when there may be victims that were not there before.
    """

    def __init__(
        self,
        queue: RequestQueue,
        suspects: Suspects,
        shares: Shares,
        settings: Settings,
        numbers: Iterator[int],
        *,
        prepare: Callable[[Iterable[LiveAnswer]], None],
        look_again: Callable[[], None],
    ) -> None:
        self._queue = queue
        self._suspects = suspects
        self._shares = shares
        self._settings = settings
        self._numbers = numbers
        self._prepare = prepare
        self._look_again = look_again
        self._retry: asyncio.TimerHandle | None = None

    def admit(self, worker: AttachedWorker, before: int | None) -> None:
        """Start the candidates that may start.

        :param before: only those of requests whose number is smaller; None is any.
        """
        if not self._queue.waiting:
            return
        settings, now_s = self._settings.get(QueueSettings), time.monotonic()
        may_start = _both(self._suspects.choice, before)
        rules = settings.admission(worker.limits, self._shares.accounts, may_start, now_s)
        plan = plan_admissions(self._queue.waiting.lines, self._queue.running, rules)
        for candidate in plan.starts:
            self.start(worker, candidate)
        if plan.blocked is None:
            return
        made = plan_preemption(plan.blocked, self._queue.running, rules, settings.preemption)
        if made.victims:
            self._put_out(worker, made)
            self.admit(worker, before)
        elif made.retry_in_s is not None:
            self._look_again_in(made.retry_in_s)

    def start(self, worker: AttachedWorker, candidate: Candidate) -> None:
        """Start a candidate."""
        candidate.started_s = time.monotonic()
        self._shares.start(candidate.answer.request)
        self._queue.start(candidate)
        worker.start(candidate)

    def put_back(self, worker: AttachedWorker, answer: LiveAnswer) -> None:
        """Take a request off the worker; it waits to be prepared anew."""
        worker.drop(answer)
        self._queue.put_back(answer, next(self._numbers))

    def _put_out(self, worker: AttachedWorker, made: Preemption) -> None:
        for victim in made.victims:
            victim.resume.preemptions += 1
            self.put_back(worker, victim)
        self._prepare(made.victims)

    def _look_again_in(self, delay_s: float) -> None:
        if self._retry is not None:
            self._retry.cancel()
        self._retry = asyncio.get_running_loop().call_later(delay_s, self._look_again)


def _both(may_start: MayStart | None, before: int | None) -> MayStart | None:
    if before is None:
        return may_start
    return lambda candidate: (
        candidate.answer.resume.number < before and (may_start is None or may_start(candidate))
    )
