"""The requests of one model: who waits, who runs, and what the worker says of each.

Plain callbacks on the kernel's event loop, no tasks. It outlives the workers it sends to: when one
is lost, what ran goes back to the head of the queue with the tokens it has so far, and the next
worker carries on.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable

from lmx_kernel import errors, events
from lmx_kernel.config import Settings
from lmx_kernel.runtime.admission import plan_admissions
from lmx_kernel.runtime.answer import Candidate, LiveAnswer
from lmx_kernel.runtime.settings import QueueSettings
from lmx_kernel.types import EngineLimits, Event, Finished, GenerationRequest, TextDelta
from lmx_kernel.worker import messages as wire

Send = Callable[[wire.Message], None]


class Dispatcher:
    """Queues requests and runs them on whatever worker is attached.

    :param wake: called when something waits and no worker is attached.
    :ivar last_used: monotonic seconds of the last request's begin or end.
    :ivar quiet: set when all that :meth:`end_turn` let through is done.
    """

    def __init__(
        self,
        model: str,
        settings: Settings,
        publish: Callable[[events.KernelEvent], None],
        wake: Callable[[], None],
    ) -> None:
        self.last_used = time.monotonic()
        self.quiet = asyncio.Event()
        self._model = model
        self._settings = settings
        self._publish = publish
        self._wake = wake
        self._ids = itertools.count(1)
        self._answers: dict[int, LiveAnswer] = {}
        self._prepared: set[LiveAnswer] = set()
        self._parked: set[LiveAnswer] = set()
        self._waiting: deque[Candidate] = deque()
        self._running: list[Candidate] = []
        self._turn: set[LiveAnswer] | None = None
        self._hold = ""
        self._send: Send | None = None
        self._limits: EngineLimits | None = None

    # --- requests ---

    @property
    def running(self) -> int:
        """Requests that the engine works on."""
        return len({candidate.answer for candidate in self._running})

    @property
    def waiting(self) -> int:
        """Requests that wait for their turn."""
        return len({candidate.answer for candidate in self._waiting})

    @property
    def parallel(self) -> int | None:
        """Sequences that the worker works on at once; None without one."""
        return self._limits.max_sequences if self._limits else None

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits for anything."""
        return not self._answers

    def submit(self, request: GenerationRequest) -> LiveAnswer:
        """Queue a request.

        :raises QueueFullError: too many wait already.
        """
        waiting = self.waiting
        if waiting >= self._queue.max_waiting:
            raise errors.QueueFullError(
                f"{waiting} requests wait for {self._model} already", retry_after_s=5
            )
        answer = LiveAnswer(request, self._model)
        answer.on_close, answer.on_drained = self._cancel, self._unpark
        loop = asyncio.get_running_loop()
        answer.deadline = loop.call_later(self._queue.max_wait_s, self._give_up_waiting, answer)
        self.last_used = time.monotonic()
        self._waiting.extend(answer.candidates)
        self._give_id(answer)
        self._prepare(answer)
        if not answer.is_count:
            self._start_alone()
        return answer

    def fail_all(self, error: errors.LmxError) -> None:
        """End every request with ``error``."""
        for answer in list(self._answers.values()):
            self._finish(answer, error.code, error)

    def end_turn(self) -> None:
        """From now on start nothing but what waits already; ``quiet`` says when it is done."""
        self._turn = set(self._answers.values())
        self._pump()

    def reopen(self) -> None:
        """Start whoever comes again."""
        self._turn = None
        self.quiet.clear()

    def hold(self, reason: str) -> None:
        """Start nobody for now, since ``reason``; "" lets them start again."""
        self._hold = reason
        self._pump()

    # --- the worker ---

    def attach(self, send: Send, limits: EngineLimits) -> None:
        """Run on this worker from now on."""
        self._send, self._limits = send, limits
        for answer in self._answers.values():
            if answer not in self._parked:
                self._prepare(answer)
        self._pump()

    def detach(self) -> None:
        """The worker stops on purpose: what it had not finished waits for the next one."""
        self._send = self._limits = None
        self._prepared.clear()
        running, self._running = self._running, []
        self._waiting.extendleft(reversed(running))

    def crash(self, reason: str) -> tuple[int, int]:
        """The worker is lost: give up the requests that met a crash before, keep the others.

        :returns: how many requests go on, and how many failed.
        """
        inflight = {candidate.answer: None for candidate in self._running}
        self.detach()
        for answer in inflight:
            answer.crashes += 1
        doomed = [answer for answer in inflight if answer.crashes > 1]
        for answer in doomed:
            self._finish(answer, errors.EngineCrashedError.code, _crash_error(answer, reason))
        return len(inflight) - len(doomed), len(doomed)

    def receive(self, message: wire.Message) -> None:
        """Take what the worker says of its requests; unknown ids were dropped meanwhile."""
        if isinstance(message, wire.Stepped):
            for routed in message.events:
                if answer := self._answers.get(routed.id):
                    self._route(answer, routed.event)
        elif isinstance(message, wire.Prepared):
            if answer := self._answers.get(message.id):
                self._prepared.add(answer)
                answer.admit(message.prompt_tokens)
                self._finish(answer, "ok") if answer.is_count else self._pump()
        elif isinstance(message, wire.Refused) and (answer := self._answers.get(message.id)):
            error = errors.from_code(message.code, message.message, message.param)
            self._finish(answer, error.code, error)

    # --- inside ---

    @property
    def _queue(self) -> QueueSettings:
        return self._settings.get(QueueSettings)

    def _give_id(self, answer: LiveAnswer) -> None:
        answer.wire_id = next(self._ids)
        self._answers[answer.wire_id] = answer

    def _prepare(self, answer: LiveAnswer) -> None:
        if self._send:
            self._send(wire.Prepare(answer.wire_id, answer.request))
        else:
            self._wake()

    def _route(self, answer: LiveAnswer, event: Event | wire.Preempted | wire.Failed) -> None:
        if isinstance(event, wire.Failed):
            error = errors.EngineFailedError(event.message)
            self._finish(answer, error.code, error)
        elif isinstance(event, wire.Preempted):
            candidate = answer.candidates[event.candidate]
            self._running.remove(candidate)
            self._waiting.appendleft(candidate)
        else:
            answer.receive(event)
            if isinstance(event, Finished):
                self._candidate_done(answer, answer.candidates[event.candidate])
            elif isinstance(event, TextDelta) and answer.is_full:
                self._park(answer)

    def _candidate_done(self, answer: LiveAnswer, candidate: Candidate) -> None:
        self._running.remove(candidate)
        if answer.unfinished:
            self._pump()
        else:
            self._finish(answer, "ok")

    def _finish(
        self, answer: LiveAnswer, outcome: str, error: errors.LmxError | None = None
    ) -> None:
        self._take_out(answer)
        self._parked.discard(answer)
        answer.end(outcome, error)
        self.last_used = time.monotonic()
        if not answer.is_count:
            usage = answer.usage()
            self._publish(
                events.RequestFinished(
                    id=answer.id, model=self._model, outcome=outcome, usage=usage
                )
            )
        self._pump()

    def _take_out(self, answer: LiveAnswer) -> None:
        """Remove an answer from the worker and from the queue."""
        del self._answers[answer.wire_id]
        if self._send:
            self._send(wire.Drop(answer.wire_id))
        self._prepared.discard(answer)
        self._running = [other for other in self._running if other.answer is not answer]
        self._waiting = deque(other for other in self._waiting if other.answer is not answer)

    def _cancel(self, answer: LiveAnswer) -> None:
        self._finish(answer, "cancelled")

    def _give_up_waiting(self, answer: LiveAnswer) -> None:
        why = f": {self._hold}" if self._hold else ""
        error = errors.UnavailableError(
            f"{self._model} could not begin within {self._queue.max_wait_s:g} seconds{why}",
            retry_after_s=10,
        )
        self._finish(answer, error.code, error)

    def _park(self, answer: LiveAnswer) -> None:
        """Free the slot of an answer whose reader is too slow; it is resumed when it caught up."""
        self._take_out(answer)
        self._give_id(answer)  # a new one, since the worker may have sent more under the old one
        self._parked.add(answer)
        self._pump()

    def _unpark(self, answer: LiveAnswer) -> None:
        if answer not in self._parked:
            return
        self._parked.discard(answer)
        self._waiting.extendleft(reversed(answer.unfinished))
        self._prepare(answer)

    def _admissible(self) -> Iterable[Candidate]:
        return (
            candidate
            for candidate in self._waiting
            if candidate.answer in self._prepared
            and (self._turn is None or candidate.answer in self._turn)
        )

    def _pump(self) -> None:
        """Start whoever may start now. A turn is also over when nobody may start any more."""
        if self._send is None or self._limits is None:
            return
        if not self._hold:
            self._admit(self._send, self._limits)
        if self._turn is not None and not self._running and (self._hold or not self._turn_waits()):
            self.quiet.set()

    def _admit(self, send: Send, limits: EngineLimits) -> None:
        expected_tokens = self._queue.expected_tokens
        for candidate in plan_admissions(
            self._admissible(), self._running, limits, expected_tokens
        ):
            self._waiting.remove(candidate)
            self._start(candidate, send)

    def _start_alone(self) -> None:
        """Start a request that has the engine to itself without waiting for its checks: it fits if
        it passes them, and if it does not, the worker ignores the start. Saves a round trip.
        """
        is_alone = not self._running and len(self._waiting) == 1
        if self._send and self._turn is None and is_alone and not self._hold:
            self._start(self._waiting.popleft(), self._send)

    def _turn_waits(self) -> bool:
        return any(candidate.answer in (self._turn or ()) for candidate in self._waiting)

    def _start(self, candidate: Candidate, send: Send) -> None:
        answer = candidate.answer
        answer.start()
        self._running.append(candidate)
        send(wire.Start(answer.wire_id, candidate.index, candidate.seed, tuple(candidate.tokens)))


def _crash_error(answer: LiveAnswer, reason: str) -> errors.EngineCrashedError:
    told = any(candidate.tokens for candidate in answer.candidates)
    return errors.EngineCrashedError(
        f"the worker of {answer.model} crashed twice while it answered this request ({reason})",
        retryable=not told,
    )
