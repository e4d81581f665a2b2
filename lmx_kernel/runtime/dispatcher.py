"""Runs the requests of one model on whatever worker is attached.

Plain callbacks on the kernel's event loop, no tasks. It outlives the workers it sends to: when one
is lost, what ran goes back to the head of the queue with the tokens it has so far, and the next
worker carries on. What runs beside what after a crash is decided by :mod:`.suspects`.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterable, Sequence

from lmx_kernel import errors, events
from lmx_kernel.config import Settings
from lmx_kernel.runtime.admission import claim_of
from lmx_kernel.runtime.answer import LiveAnswer, Phase
from lmx_kernel.runtime.attached_worker import AttachedWorker, Send
from lmx_kernel.runtime.request_queue import RequestQueue
from lmx_kernel.runtime.settings import QueueSettings
from lmx_kernel.runtime.shares import Shares
from lmx_kernel.runtime.starts import Starts
from lmx_kernel.runtime.suspects import Suspects, Verdict
from lmx_kernel.types import EngineLimits, Finished, GenerationRequest, TextDelta
from lmx_kernel.worker import messages as wire

Given = wire.Given


class Dispatcher:
    """Queues requests and runs them; callers share the model.

    :param wake: called when something waits and no worker is attached.
    :param shares: what callers were served by all models.
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
        shares: Shares,
    ) -> None:
        self.last_used = time.monotonic()
        self._model = model
        self._settings = settings
        self._publish = publish
        self._wake = wake
        self._on_quiet = on_quiet
        self._shares = shares
        self._numbers = itertools.count(1)
        self._queue = RequestQueue()
        self._suspects = Suspects()
        self._turn_end: int | None = None  # requests of this number or a later one do not start
        self._hold = ""
        self._worker: AttachedWorker | None = None
        parts = self._queue, self._suspects, shares, settings, self._numbers
        self._starts = Starts(*parts, prepare=self._prepare, look_again=self._pump)

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
    def claim(self) -> tuple[int, float]:
        """What decides when the model is loaded; see :func:`claim_of`."""
        heads, accounts = self._queue.waiting.heads, self._shares.accounts
        return claim_of(heads, accounts, time.monotonic(), self._queue_settings.raise_after_s)

    @property
    def is_idle(self) -> bool:
        """Whether there is no request, not even a parked one."""
        return not self._queue.answers

    def submit(self, request: GenerationRequest) -> LiveAnswer:
        """Queue a request.

        :raises QueueFullError: too many wait already.
        :raises RateLimitedError: its caller has had its tokens of this minute.
        """
        settings = self._queue_settings
        self._queue.check_room(request, self._model, settings.max_waiting)
        self._shares.enter(request)
        number, loop = next(self._numbers), asyncio.get_running_loop()
        answer = LiveAnswer(
            request,
            self._model,
            number=number,
            on_close=lambda answer: self._finish(answer, "cancelled"),
            on_drained=self._unpark,
            deadline=loop.call_later(settings.max_wait_s, self._give_up_waiting, number),
        )
        self.last_used = time.monotonic()
        self._queue.add(answer)
        self._prepare([answer])
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
        self._worker = AttachedWorker(send, limits)
        self._prepare(self._queue.answers.values())
        self._pump()

    def detach(self) -> None:
        """The worker stops on purpose: what it had not finished waits for the next one."""
        self._worker = None
        self._queue.lose_worker()

    def crash(self, reason: str, *, killed: bool = False) -> Verdict:
        """The worker is lost: give up the request whose fault it was, if that is known, and keep
        the others.

        :param killed: see :meth:`Suspects.crashed`.
        """
        running, preparing = self._queue.running, self._queue.preparing
        verdict = self._suspects.crashed(running, preparing, killed=killed)
        self.detach()
        if verdict.doomed is not None:
            self._fail(verdict.doomed, _crash_error(verdict.doomed, reason))
        return verdict

    def receive(self, message: wire.Message) -> None:
        """Handle a message about requests; those with unknown ids were dropped meanwhile."""
        answers = self._queue.answers if self._worker else {}  # none: it is detached already
        if isinstance(message, wire.Stepped):
            for routed in message.routed:
                if answer := answers.get(routed.id):
                    self._route(answer, routed.events)
            self._try_next_group()
        elif isinstance(message, wire.Prepared):
            if answer := answers.get(message.id):
                answer.admit(message.prompt_tokens, message.prompt, message.fingerprint)
                self._finish(answer, "ok") if answer.is_count else self._pump()
        elif isinstance(message, wire.Refused) and (answer := answers.get(message.id)):
            self._fail(answer, message.error)

    # --- inside ---

    @property
    def _queue_settings(self) -> QueueSettings:
        return self._settings.get(QueueSettings)

    def _prepare(self, answers: Iterable[LiveAnswer]) -> None:
        if self._worker is None:
            self._wake()
            return
        for answer in answers:
            if answer.resume.phase is Phase.UNCHECKED and self._suspects.may_run(answer):
                self._worker.prepare(answer)

    def _route(self, answer: LiveAnswer, given: Sequence[Given]) -> None:
        """Take all of a candidate's step, and only then park it, but never within its prompt."""
        for event in given:
            if isinstance(event, wire.Failed):
                self._fail(answer, errors.EngineFailedError(event.message))
            elif isinstance(event, wire.Preempted):
                self._queue.preempt(answer.resume.candidates[event.candidate])
            elif isinstance(event, wire.Drafted):
                answer.resume.count_drafts(
                    event.candidate, event.drafted, event.accepted, event.model
                )
            else:
                answer.receive(event)
                self._shares.charge(answer, event)
                if isinstance(event, Finished):
                    self._queue.running.remove(answer.resume.candidates[event.candidate])
                    self._pump() if answer.resume.unfinished else self._finish(answer, "ok")
        has_token = any(isinstance(event, TextDelta) for event in given)
        if answer.is_full and has_token and answer.outcome is None:
            self._park(answer)

    def _finish(
        self, answer: LiveAnswer, outcome: str, error: errors.LmxError | None = None
    ) -> None:
        self._queue.remove(answer)
        self._shares.leave(answer.request)
        self._suspects.remove(answer, has_worked=outcome == "ok" and not answer.is_count)
        if self._worker is not None:
            self._worker.drop(answer)
        answer.end(outcome, error)
        self.last_used = time.monotonic()
        if not answer.is_count:
            self._publish(answer.report(outcome))
        self._pump()

    def _fail(self, answer: LiveAnswer, error: errors.LmxError) -> None:
        self._finish(answer, error.code, error)

    def _give_up_waiting(self, number: int) -> None:
        answer = self._queue.answers[number]  # it has not started: its id is its number still
        self._fail(answer, _wait_error(answer, self._queue_settings.max_wait_s, self._hold))

    def _park(self, answer: LiveAnswer) -> None:
        """Free the slot of an answer whose reader is too slow; it is resumed when it caught up."""
        assert self._worker is not None  # it has just sent something
        self._worker.drop(answer)
        self._queue.park(answer, next(self._numbers))
        self._suspects.remove(answer, has_worked=True)
        self._pump()

    def _unpark(self, answer: LiveAnswer) -> None:
        self._queue.unpark(answer)
        self._prepare([answer])

    def _pump(self) -> None:
        """Start the candidates that may start. A turn is also over when none of them may."""
        if self._worker is None:
            return
        if not self._hold:
            self._starts.admit(self._worker, self._turn_end)
            self._try_next_group()
        if self._turn_end is None or self._queue.running:
            return
        if self._hold or not self._queue.has_waiting(self._turn_end):
            self._on_quiet()

    def _start_alone(self) -> None:
        """Start a request that has the engine to itself without waiting for its checks: it fits if
        it passes them, and if it does not, the worker ignores the start. Saves a round trip.
        """
        alone, is_open = self._queue.alone, self._turn_end is None and not self._hold
        if self._worker and alone and is_open and self._suspects.may_start(alone):
            self._starts.start(self._worker, alone)

    def _try_next_group(self) -> None:
        """Once the suspects that run are cleared, put them back and let the next ones run."""
        while self._worker and not self._hold and self._suspects.is_cleared(self._queue.running):
            self._suspects.advance()
            for answer in reversed(self._queue.running_requests):
                if not self._suspects.may_run(answer):
                    self._starts.put_back(self._worker, answer)
            self._prepare(self._queue.answers.values())
            self._starts.admit(self._worker, self._turn_end)


def _wait_error(answer: LiveAnswer, max_wait_s: float, hold: str) -> errors.UnavailableError:
    why = f": {hold}" if hold else ""
    return errors.UnavailableError(
        f"{answer.model} could not begin within {max_wait_s:g} seconds{why}", retry_after_s=10
    )


def _crash_error(answer: LiveAnswer, reason: str) -> errors.EngineCrashedError:
    has_begun = any(candidate.tokens for candidate in answer.resume.candidates)
    return errors.EngineCrashedError(
        f"the worker of {answer.model} crashed twice while it answered this request ({reason})",
        retryable=not has_begun,
    )
