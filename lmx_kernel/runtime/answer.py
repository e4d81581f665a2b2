"""One request and its answer: events for the reader, and state for the dispatcher."""

from __future__ import annotations

import asyncio
import secrets
import uuid
from collections.abc import Callable
from enum import Enum, auto

from attrs import define, field

from lmx_kernel.errors import LmxError
from lmx_kernel.events import RequestFinished
from lmx_kernel.interfaces import Answer, AnswerObserver
from lmx_kernel.runtime.event_buffer import EventBuffer
from lmx_kernel.runtime.stopwatch import Stopwatch
from lmx_kernel.types import (
    Admitted,
    EncodedPrompt,
    Event,
    Finished,
    GenerationRequest,
    PromptProgress,
    Route,
    TextDelta,
    Usage,
)

MAX_SEED = 2**63 - 1


class Phase(Enum):
    """What a dispatcher may do with an answer."""

    UNCHECKED = auto()
    """The attached worker, if any, was not asked to prepare its prompt yet: its candidates wait."""

    PREPARING = auto()
    """The worker prepares its prompt, or will."""

    PREPARED = auto()
    """Its candidates may run."""

    PARKED = auto()
    """Its reader is far behind: it is neither in the queue nor on the worker."""

    ENDED = auto()


@define(eq=False)
class Candidate:
    """One of an answer's candidates: all its tokens are kept, so that it can be resumed.

    :ivar started_s: when it was last started, in monotonic seconds.
    """

    answer: LiveAnswer
    index: int
    seed: int
    tokens: list[int] = field(factory=list)
    finished: bool = False
    reasoning_tokens: int = 0
    started_s: float = 0.0
    draft_tokens: int = 0
    accepted_draft_tokens: int = 0
    draft_model: str = ""


@define(eq=False)
class ResumeState:
    """What a dispatcher needs to run a request, and to go on with it on another worker.

    :ivar number: grows in the order in which the requests of one dispatcher came.
    :ivar wire_id: what the worker calls the request; another one after it was parked.
    :ivar crashes: of workers in which nothing else was in flight.
    :ivar preemptions: how many times it was put out for a request of higher priority.
    :ivar cached_tokens: of its prompt, that were not computed when it first started.
    """

    candidates: list[Candidate]
    number: int
    wire_id: int
    phase: Phase = Phase.UNCHECKED
    crashes: int = 0
    preemptions: int = 0
    cached_tokens: int | None = None

    @property
    def unfinished(self) -> list[Candidate]:
        """The candidates that are not complete."""
        return [candidate for candidate in self.candidates if not candidate.finished]

    def count_drafts(self, index: int, drafted: int, accepted: int, model: str) -> None:
        """Count the drafts of a candidate's step, those that were right, and whose they were."""
        candidate = self.candidates[index]
        candidate.draft_tokens += drafted
        candidate.accepted_draft_tokens += accepted
        candidate.draft_model = model or candidate.draft_model

    def lose_worker(self) -> None:
        """Note that the worker that prepared the prompt is gone."""
        if self.phase is not Phase.PARKED:
            self.phase = Phase.UNCHECKED

    def park(self, wire_id: int) -> None:
        """Take the request off its worker. It goes on as ``wire_id``, since the worker may have
        sent more under the old id already.
        """
        self.phase, self.wire_id = Phase.PARKED, wire_id


def _ignore(answer: LiveAnswer) -> None:
    pass


class LiveAnswer(Answer):
    """The events of one request, buffered for its reader. Its dispatcher is the writer.

    :param number: see :class:`ResumeState`.
    :param on_close: called when the reader closes it before its end.
    :param on_drained: called when the reader of a parked answer caught up.
    :param deadline: cancelled when the request starts or ends.
    :ivar resume: the dispatcher's own.
    :ivar prompt: what the model would read, once a worker returned it.
    :ivar route: how it came to its model; None until that is decided.
    """

    def __init__(
        self,
        request: GenerationRequest,
        model: str,
        *,
        number: int = 0,
        on_close: Callable[[LiveAnswer], None] = _ignore,
        on_drained: Callable[[LiveAnswer], None] = _ignore,
        deadline: asyncio.TimerHandle | None = None,
    ) -> None:
        self.request = request
        self.model = model
        self.id = uuid.uuid4().hex
        self.outcome: str | None = None
        self._admitted: Admitted | None = None
        self.prompt: EncodedPrompt | None = None
        self.route: Route | None = None
        seed = request.sampling.seed
        base = secrets.randbelow(MAX_SEED) if seed is None else seed
        candidates = [
            Candidate(self, index, (base + index) & MAX_SEED, list(request.said))
            for index in range(request.candidates)
        ]
        self.resume = ResumeState(candidates, number, wire_id=number)
        self._on_close = on_close
        self._on_drained = on_drained
        self._deadline = deadline
        self._buffer = EventBuffer()
        self._stopwatch = Stopwatch()
        self._observers: list[AnswerObserver] = []

    # --- reading ---

    async def next(self, timeout_s: float | None = None) -> Event | None:
        """Return the next event; see :meth:`Answer.next`."""
        event = await self._buffer.next(timeout_s)
        self._go_on_if_drained()
        return event

    async def next_steps(self, timeout_s: float | None = None) -> list[Event]:
        """Return all events that are there, once there is one: whole steps of the engine, so that
        their tokens are all that was said up to their end. None come within ``timeout_s``: [].

        :raises LmxError: as :meth:`next`, like StopAsyncIteration.
        """
        first = await self._buffer.next(timeout_s)
        events = [] if first is None else [first, *self._buffer.take()]
        self._go_on_if_drained()
        return events

    def close(self) -> None:
        """Cancel what still runs; see :meth:`Answer.close`."""
        if self.outcome is None:
            self._on_close(self)

    def usage(self) -> Usage:
        """Return what it cost so far."""
        candidates = self.resume.candidates
        return Usage(
            prompt_tokens=self.prompt_tokens or 0,
            cached_tokens=self.resume.cached_tokens or 0,
            completion_tokens=sum(len(candidate.tokens) for candidate in candidates),
            reasoning_tokens=sum(candidate.reasoning_tokens for candidate in candidates),
            draft_tokens=sum(candidate.draft_tokens for candidate in candidates),
            accepted_draft_tokens=sum(one.accepted_draft_tokens for one in candidates),
            draft_model=max(one.draft_model for one in candidates) or self.request.draft_model,
            queue_s=self._stopwatch.queue_s,
            first_token_s=self._stopwatch.first_token_s,
            total_s=self._stopwatch.total_s,
        )

    def _go_on_if_drained(self) -> None:
        if self.resume.phase is Phase.PARKED and self._buffer.is_drained:
            self._on_drained(self)

    def observe(self, observer: AnswerObserver) -> None:
        """Tell ``observer`` of all that follows; it must return at once."""
        self._observers.append(observer)

    @property
    def prompt_tokens(self) -> int | None:
        """Of its prompt; None before a worker counted them."""
        return self._admitted.prompt_tokens if self._admitted else None

    @property
    def fingerprint(self) -> str:
        """See :attr:`Answer.fingerprint`."""
        return self._admitted.fingerprint if self._admitted else ""

    # --- writing ---

    @property
    def created_s(self) -> float:
        """When the request came, in monotonic seconds."""
        return self._stopwatch.created

    @property
    def is_count(self) -> bool:
        """Whether only the prompt is counted, so that nothing runs."""
        return self.request.max_tokens == 0

    @property
    def is_full(self) -> bool:
        """Whether the reader is so far behind that the answer should pause."""
        return self._buffer.is_full

    def admit(
        self, prompt_tokens: int, prompt: EncodedPrompt | None = None, fingerprint: str = ""
    ) -> None:
        """Note that the request passed its checks; the reader learns it the first time only."""
        self.resume.phase = Phase.PREPARED
        if self._admitted is None:
            self._admitted, self.prompt = Admitted(prompt_tokens, fingerprint), prompt
            self._push(self._admitted)

    def start(self) -> None:
        """Note that a candidate left the queue."""
        self._stopwatch.start()
        self._disarm()

    def receive(self, event: Event) -> None:
        """Take an event of the worker: keep what a resume needs, and pass it to the reader. Between
        the events of one step of a candidate nothing else may happen to the answer.
        """
        if isinstance(event, TextDelta):
            self.resume.candidates[event.candidate].tokens.extend(event.tokens)
            self._stopwatch.token()
        elif isinstance(event, Finished):
            candidate = self.resume.candidates[event.candidate]
            candidate.finished, candidate.reasoning_tokens = True, event.reasoning_tokens
        elif isinstance(event, PromptProgress) and self.resume.cached_tokens is None:
            self.resume.cached_tokens = event.cached
        self._push(event)

    def end(self, outcome: str, error: LmxError | None = None) -> None:
        """End the events; the reader gets what is buffered, then the error or the end."""
        self.outcome = outcome
        self.resume.phase = Phase.ENDED
        self._stopwatch.end()
        self._disarm()
        self._buffer.close(error)
        for observer in self._observers:
            observer.end(outcome, self.usage())

    def report(self, outcome: str) -> RequestFinished:
        """Return the event that tells others how it ended."""
        return RequestFinished(
            id=self.id,
            model=self.model,
            outcome=outcome,
            usage=self.usage(),
            key=self.request.key,
            caller=self.request.caller,
            route=self.route,
        )

    def _push(self, event: Event) -> None:
        self._buffer.push(event)
        for observer in self._observers:
            observer.see(event)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
