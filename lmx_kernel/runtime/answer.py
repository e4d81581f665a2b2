"""One request being answered: what its reader sees, and what it takes to go on elsewhere."""

from __future__ import annotations

import asyncio
import secrets
import time
import uuid
from collections import deque
from collections.abc import Callable

from attrs import define, field

from lmx_kernel.errors import LmxError
from lmx_kernel.interfaces import Answer
from lmx_kernel.types import (
    Admitted,
    Event,
    Finished,
    GenerationRequest,
    PromptProgress,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
)

MAX_BUFFERED_EVENTS = 1024
MAX_BUFFERED_CHARS = 256 * 1024
MAX_SEED = 2**63 - 1


@define(eq=False)
class Candidate:
    """One of an answer's candidates: all its tokens are kept, so that it can be resumed."""

    answer: LiveAnswer
    index: int
    seed: int
    tokens: list[int] = field(factory=list)
    finished: bool = False
    reasoning_tokens: int = 0


class LiveAnswer(Answer):
    """The events of one request, buffered. The instance that runs it is the writer."""

    def __init__(self, request: GenerationRequest, model: str) -> None:
        self.request = request
        self.model = model
        self.id = uuid.uuid4().hex
        seed = request.sampling.seed
        base = secrets.randbelow(MAX_SEED) if seed is None else seed
        self.candidates = [
            Candidate(self, index, (base + index) & MAX_SEED) for index in range(request.candidates)
        ]
        self.prompt_tokens: int | None = None
        self.wire_id = 0  # what the worker calls it
        self.deadline: asyncio.TimerHandle | None = None
        self.crashes = 0
        self.outcome: str | None = None
        self.on_close: Callable[[LiveAnswer], None] | None = None
        self.on_drained: Callable[[LiveAnswer], None] | None = None
        self._cached_tokens: int | None = None
        self._events: deque[Event] = deque()
        self._buffered_chars = 0
        self._error: LmxError | None = None
        self._changed = asyncio.Event()
        self._created = time.monotonic()
        self._started: float | None = None
        self._first_token: float | None = None
        self._ended: float | None = None

    # --- reading ---

    async def next(self, timeout_s: float | None = None) -> Event | None:
        """Return the next event; see :meth:`Answer.next`."""
        if not self._events and self.outcome is None:
            self._changed.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._changed.wait()
            except TimeoutError:
                return None
        if self._events:
            return self._pop()
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    def close(self) -> None:
        """Stop caring: cancels what still runs. Harmless after the end."""
        if self.on_close is not None:
            self.on_close(self)

    def usage(self) -> Usage:
        """Return what it cost so far."""
        end = self._ended or time.monotonic()
        return Usage(
            prompt_tokens=self.prompt_tokens or 0,
            cached_tokens=self._cached_tokens or 0,
            completion_tokens=sum(len(candidate.tokens) for candidate in self.candidates),
            reasoning_tokens=sum(candidate.reasoning_tokens for candidate in self.candidates),
            queue_s=(self._started or end) - self._created,
            first_token_s=self._first_token and self._first_token - self._created,
            total_s=end - self._created,
        )

    def _pop(self) -> Event:
        event = self._events.popleft()
        self._buffered_chars -= _chars(event)
        if self.on_drained is not None and len(self._events) <= MAX_BUFFERED_EVENTS // 2:
            self.on_drained(self)
        return event

    # --- writing ---

    @property
    def is_count(self) -> bool:
        """Whether only the prompt is counted, so that nothing runs."""
        return self.request.max_tokens == 0

    @property
    def is_full(self) -> bool:
        """Whether the reader is so far behind that the answer should pause."""
        return (
            len(self._events) >= MAX_BUFFERED_EVENTS or self._buffered_chars >= MAX_BUFFERED_CHARS
        )

    @property
    def unfinished(self) -> list[Candidate]:
        """The candidates that still have something to say."""
        return [candidate for candidate in self.candidates if not candidate.finished]

    def admit(self, prompt_tokens: int) -> None:
        """Note that the request passed its checks; told to the reader the first time only."""
        if self.prompt_tokens is None:
            self.prompt_tokens = prompt_tokens
            self._push(Admitted(prompt_tokens))

    def start(self) -> None:
        """Note that the first candidate left the queue."""
        self._started = self._started or time.monotonic()
        self._disarm()

    def receive(self, event: Event) -> None:
        """Take an event of the worker: keep what a resume needs, and pass it to the reader."""
        if isinstance(event, TextDelta):
            self.candidates[event.candidate].tokens.extend(event.tokens)
            self._first_token = self._first_token or time.monotonic()
        elif isinstance(event, Finished):
            self.candidates[event.candidate].finished = True
            self.candidates[event.candidate].reasoning_tokens = event.reasoning_tokens
        elif isinstance(event, PromptProgress) and self._cached_tokens is None:
            self._cached_tokens = event.cached
        self._push(event)

    def end(self, outcome: str, error: LmxError | None = None) -> None:
        """Close the writing side; the reader gets what is buffered, then the error or the end."""
        self.outcome, self._error = outcome, error
        self._ended = time.monotonic()
        self.on_close = self.on_drained = None
        self._disarm()
        self._changed.set()

    def _disarm(self) -> None:
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None

    def _push(self, event: Event) -> None:
        self._buffered_chars += _chars(event)
        self._events.append(event)
        self._changed.set()


def _chars(event: Event) -> int:
    if isinstance(event, TextDelta | ReasoningDelta):
        return len(event.text)
    return len(event.arguments) if isinstance(event, ToolCallDelta) else 0
