"""Runs the requests of one model on whatever worker is attached.

Plain callbacks on the kernel's event loop, no tasks. It outlives the workers it sends to: when one
is lost, what ran goes back to the head of the queue with the tokens it has so far, and the next
worker carries on.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable

from attrs import frozen

from lmx_kernel import errors, events
from lmx_kernel.config import Settings
from lmx_kernel.runtime.admission import plan_admissions
from lmx_kernel.runtime.answer import Candidate, LiveAnswer, Phase
from lmx_kernel.runtime.request_queue import RequestQueue
from lmx_kernel.runtime.settings import QueueSettings
from lmx_kernel.types import EngineLimits, Event, Finished, GenerationRequest
from lmx_kernel.worker import messages as wire

Send = Callable[[wire.Message], None]


@frozen
class _Worker:
    send: Send
    limits: EngineLimits


class Dispatcher:
    """Queues requests and runs them, first come, first served.

    :param wake: called when something waits and no worker is attached.
    :param on_quiet: called when all that was queued before :meth:`end_turn` has finished; maybe
        more than once.
    :ivar last_used: monotonic seconds of the last request's begin or end.
    """

    def __init__(
        self,
        model: str,
        settings: Settings,
        publish: Callable[[events.KernelEvent], None],
        wake: Callable[[], None],
        on_quiet: Callable[[], None],
    ) -> None:
        self.last_used = time.monotonic()
        self._model = model
        self._settings = settings
        self._publish = publish
        self._wake = wake
        self._on_quiet = on_quiet
        self._numbers = itertools.count(1)
        self._queue = RequestQueue()
        self._turn_end: int | None = None  # requests of this number or a later one do not start
        self._hold = ""
        self._worker: _Worker | None = None

    # --- requests ---

    @property
    def running(self) -> int:
        """Requests that the engine works on."""
        return len(self._queue.running_requests)

    @property
    def waiting(self) -> int:
        """Requests that wait for their turn."""
        return self._queue.waiting_requests

    @property
    def parallel(self) -> int | None:
        """Sequences that the worker works on at once; None without one."""
        return self._worker.limits.max_sequences if self._worker else None

    @property
    def is_idle(self) -> bool:
        """Whether there is no request, not even a parked one."""
        return not self._queue.answers

    def submit(self, request: GenerationRequest) -> LiveAnswer:
        """Queue a request.

        :raises QueueFullError: too many wait already.
        """
        settings, waiting = self._queue_settings, self.waiting
        if waiting >= settings.max_waiting:
            raise errors.QueueFullError(
                f"{waiting} requests wait for {self._model} already", retry_after_s=5
            )
        number, loop = next(self._numbers), asyncio.get_running_loop()
        answer = LiveAnswer(
            request,
            self._model,
            number=number,
            on_close=self._cancel,
            on_drained=self._unpark,
            deadline=loop.call_later(settings.max_wait_s, self._give_up_waiting, number),
        )
        self.last_used = time.monotonic()
        self._queue.add(answer)
        self._prepare(answer)
        if not answer.is_count:
            self._start_alone()
        return answer

    def fail_all(self, error: errors.LmxError) -> None:
        """End every request with ``error``."""
        for answer in list(self._queue.answers.values()):
            self._fail(answer, error)

    def end_turn(self) -> None:
        """Stop starting new requests. ``on_quiet`` is called when those that are queued now have
        finished; the others wait for :meth:`reopen`.
        """
        if self._turn_end is None:
            self._turn_end = next(self._numbers)
        self._pump()

    def reopen(self) -> None:
        """Start new requests again."""
        self._turn_end = None

    def hold(self, reason: str) -> None:
        """Start no request for now, for ``reason``; "" lets them start again."""
        self._hold = reason
        self._pump()

    # --- the worker ---

    def attach(self, send: Send, limits: EngineLimits) -> None:
        """Run on this worker from now on."""
        self._worker = _Worker(send, limits)
        for answer in self._queue.answers.values():
            if answer.resume.phase is not Phase.PARKED:
                self._prepare(answer)
        self._pump()

    def detach(self) -> None:
        """The worker stops on purpose: what it had not finished waits for the next one."""
        self._worker = None
        self._queue.lose_worker()

    def crash(self, reason: str) -> tuple[int, int]:
        """The worker is lost: give up the requests that met a crash before, keep the others.

        :returns: how many requests go on, and how many failed.
        """
        inflight = self._queue.running_requests
        self.detach()
        doomed = [answer for answer in inflight if not answer.resume.survive_crash()]
        for answer in doomed:
            self._fail(answer, _crash_error(answer, reason))
        return len(inflight) - len(doomed), len(doomed)

    def receive(self, message: wire.Message) -> None:
        """Handle a message about requests; those with unknown ids were dropped meanwhile."""
        answers = self._queue.answers
        if isinstance(message, wire.Stepped):
            for routed in message.events:
                if answer := answers.get(routed.id):
                    self._route(answer, routed.event)
            # Not before: the rest of the step belongs to tokens that are counted already.
            for wire_id in {routed.id for routed in message.events}:
                if (answer := answers.get(wire_id)) and answer.is_full:
                    self._park(answer)
        elif isinstance(message, wire.Prepared):
            if answer := answers.get(message.id):
                answer.admit(message.prompt_tokens)
                self._finish(answer, "ok") if answer.is_count else self._pump()
        elif isinstance(message, wire.Refused) and (answer := answers.get(message.id)):
            self._fail(answer, errors.from_code(message.code, message.message, message.param))

    # --- inside ---

    @property
    def _queue_settings(self) -> QueueSettings:
        return self._settings.get(QueueSettings)

    def _send(self, message: wire.Message) -> None:
        if self._worker is not None:
            self._worker.send(message)

    def _prepare(self, answer: LiveAnswer) -> None:
        if self._worker is not None:
            self._worker.send(wire.Prepare(answer.resume.wire_id, answer.request))
        else:
            self._wake()

    def _route(self, answer: LiveAnswer, event: Event | wire.Preempted | wire.Failed) -> None:
        if isinstance(event, wire.Failed):
            self._fail(answer, errors.EngineFailedError(event.message))
        elif isinstance(event, wire.Preempted):
            self._queue.preempt(answer.resume.candidates[event.candidate])
        else:
            answer.receive(event)
            if isinstance(event, Finished):
                self._candidate_done(answer, answer.resume.candidates[event.candidate])

    def _candidate_done(self, answer: LiveAnswer, candidate: Candidate) -> None:
        self._queue.running.remove(candidate)
        if answer.resume.unfinished:
            self._pump()
        else:
            self._finish(answer, "ok")

    def _finish(
        self, answer: LiveAnswer, outcome: str, error: errors.LmxError | None = None
    ) -> None:
        self._queue.remove(answer)
        self._send(wire.Drop(answer.resume.wire_id))
        answer.end(outcome, error)
        self.last_used = time.monotonic()
        if not answer.is_count:
            self._publish(
                events.RequestFinished(
                    id=answer.id, model=self._model, outcome=outcome, usage=answer.usage()
                )
            )
        self._pump()

    def _fail(self, answer: LiveAnswer, error: errors.LmxError) -> None:
        self._finish(answer, error.code, error)

    def _cancel(self, answer: LiveAnswer) -> None:
        self._finish(answer, "cancelled")

    def _give_up_waiting(self, number: int) -> None:
        answer = self._queue.answers[number]  # it has not started: its id is its number still
        max_wait_s, why = self._queue_settings.max_wait_s, f": {self._hold}" if self._hold else ""
        text = f"{self._model} could not begin within {max_wait_s:g} seconds{why}"
        self._fail(answer, errors.UnavailableError(text, retry_after_s=10))

    def _park(self, answer: LiveAnswer) -> None:
        """Free the slot of an answer whose reader is too slow; it is resumed when it caught up."""
        self._send(wire.Drop(answer.resume.wire_id))
        self._queue.park(answer, next(self._numbers))
        self._pump()

    def _unpark(self, answer: LiveAnswer) -> None:
        self._queue.unpark(answer)
        self._prepare(answer)

    def _pump(self) -> None:
        """Start the candidates that may start. A turn is also over when none of them may."""
        if self._worker is None:
            return
        if not self._hold:
            self._admit(self._worker)
        if self._turn_end is None or self._queue.running:
            return
        if self._hold or not self._queue.has_waiting(self._turn_end):
            self._on_quiet()

    def _admit(self, worker: _Worker) -> None:
        if self._queue.waiting:
            admissible, running = self._queue.admissible(self._turn_end), self._queue.running
            expected_tokens = self._queue_settings.expected_tokens
            for candidate in plan_admissions(admissible, running, worker.limits, expected_tokens):
                self._start(candidate, worker.send)

    def _start_alone(self) -> None:
        """Start a request that has the engine to itself without waiting for its checks: it fits if
        it passes them, and if it does not, the worker ignores the start. Saves a round trip.
        """
        is_alone = not self._queue.running and len(self._queue.waiting) == 1
        if self._worker and self._turn_end is None and is_alone and not self._hold:
            self._start(self._queue.waiting[0], self._worker.send)

    def _start(self, candidate: Candidate, send: Send) -> None:
        resume = candidate.answer.resume
        candidate.answer.start()
        self._queue.start(candidate)
        send(wire.Start(resume.wire_id, candidate.index, candidate.seed, tuple(candidate.tokens)))


def _crash_error(answer: LiveAnswer, reason: str) -> errors.EngineCrashedError:
    has_begun = any(candidate.tokens for candidate in answer.resume.candidates)
    return errors.EngineCrashedError(
        f"the worker of {answer.model} crashed twice while it answered this request ({reason})",
        retryable=not has_begun,
    )
