"""The surface in a real HTTP server, over a kernel that answers as a test scripts it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import httpx2
import openai
import pytest
import uvloop
from attrs import define, evolve, field
from lmx_responses_api.settings import ResponsesSettings
from lmx_responses_api.surface import ResponsesSurface

from lmx_kernel.errors import ConflictError, LmxError, NotFoundError, from_code
from lmx_kernel.interfaces import Answer, StoredAnswer
from lmx_kernel.runtime.answer import LiveAnswer
from lmx_kernel.testing.stub_kernel import MODEL, StubKernel, make_logprob, serving
from lmx_kernel.types import (
    ChatPrompt,
    Event,
    Finished,
    GenerationRequest,
    Logprobs,
    PromptProgress,
    ReasoningDelta,
    Route,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)

NO_USAGE = Usage(
    prompt_tokens=0,
    cached_tokens=0,
    completion_tokens=0,
    queue_s=0.0,
    first_token_s=None,
    total_s=0.0,
)


def pytest_asyncio_loop_factories(config: object, item: object) -> dict[str, Any]:
    return {"uvloop": uvloop.new_event_loop}  # as the daemon


# --- stored answers in memory ---


@define(eq=False)
class Entry:
    """A kept answer with its events, which may still come."""

    answer: StoredAnswer
    events: list[Event] = field(factory=list)
    live: LiveAnswer | None = None
    changed: asyncio.Condition = field(factory=asyncio.Condition)

    async def grow(self, event: Event | None = None, **end: Any) -> None:
        async with self.changed:
            if event is not None:
                self.events.append(event)
            self.answer = evolve(self.answer, **end)
            self.changed.notify_all()


class Reader(Answer):
    """Reads an entry from its first event on."""

    def __init__(self, entry: Entry) -> None:
        self.id, self.model = entry.answer.id, entry.answer.model
        self._entry = entry
        self._read = 0

    async def next(self, timeout_s: float | None = None) -> Event | None:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._next()
        except TimeoutError:
            return None

    async def _next(self) -> Event:
        entry = self._entry
        async with entry.changed:
            await entry.changed.wait_for(
                lambda: self._read < len(entry.events) or entry.answer.outcome is not None
            )
        if self._read < len(entry.events):
            self._read += 1
            return entry.events[self._read - 1]
        self.outcome = entry.answer.outcome
        if self.outcome not in ("ok", "cancelled"):
            raise from_code(self.outcome or "", entry.answer.problem)
        raise StopAsyncIteration

    def usage(self) -> Usage:
        return self._entry.answer.usage or NO_USAGE

    def close(self) -> None:
        self.outcome = self.outcome or "cancelled"


@define
class MemoryAnswers:
    """Keeps answers as :class:`lmx_kernel.interfaces.StoredAnswers` says, but in memory."""

    kernel: StubKernel
    entries: dict[str, Entry] = field(factory=dict)
    tasks: set[asyncio.Task[None]] = field(factory=set)

    async def put(self, answer: StoredAnswer, events: Sequence[Event]) -> None:
        self._add(Entry(answer, list(events)))

    async def start(self, answer: StoredAnswer, request: GenerationRequest) -> None:
        live = await self.kernel.generate(request)
        entry = Entry(answer, live=live)
        self._add(entry)
        task = asyncio.create_task(self._pump(entry, live))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def get(self, answer_id: str, owner: str) -> StoredAnswer:
        return self._find(answer_id, owner).answer

    async def read(self, answer_id: str, owner: str) -> Answer:
        return Reader(self._find(answer_id, owner))

    async def cancel(self, answer_id: str, owner: str) -> StoredAnswer:
        entry = self._find(answer_id, owner)
        if entry.answer.outcome is None:
            assert entry.live is not None
            entry.live.close()
            await asyncio.gather(*self.tasks)
        return entry.answer

    async def delete(self, answer_id: str, owner: str) -> None:
        self._find(answer_id, owner)
        await self.cancel(answer_id, owner)
        del self.entries[answer_id]

    def _add(self, entry: Entry) -> None:
        if entry.answer.id in self.entries:
            raise ConflictError(f"there is an answer {entry.answer.id}")
        self.entries[entry.answer.id] = entry

    def _find(self, answer_id: str, owner: str) -> Entry:
        entry = self.entries.get(answer_id)
        if entry is None or entry.answer.owner != owner:
            raise NotFoundError(f"there is no answer {answer_id}")
        return entry

    async def _pump(self, entry: Entry, live: LiveAnswer) -> None:
        await entry.grow(model=live.model)
        try:
            async for event in live:
                await entry.grow(event)
        except LmxError as error:
            await entry.grow(problem=error.message)
        end = {"ended_at": entry.answer.created_at + 5, "outcome": live.outcome}
        await entry.grow(**end, usage=live.usage())


# --- the kernel ---


@define
class ResponsesKernel(StubKernel):
    """A stub that keeps answers, and has contexts.

    :ivar tokens_per_message: what counting finds; 0 for the seven tokens of any prompt.
    """

    context_length: int = 100
    tokens_per_message: int = 0
    stored_answers: MemoryAnswers = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.stored_answers = MemoryAnswers(self)

    async def count_tokens(self, request: GenerationRequest) -> int:
        counted = await StubKernel.count_tokens(self, request)
        assert isinstance(request.prompt, ChatPrompt)
        return self.tokens_per_message * len(request.prompt.messages) or counted

    async def explain(self, request: GenerationRequest) -> Route:
        return Route(asked=request.model, model=MODEL)

    def status(self) -> Any:
        return SimpleNamespace(
            models=[SimpleNamespace(id=MODEL, context_length=self.context_length)]
        )


# --- what the model does ---


def play(*events: Event, reason: str = "stop", error: LmxError | None = None) -> Any:
    """Return a play of these events."""

    def run(answer: LiveAnswer) -> None:
        answer.admit(7)
        answer.start()
        answer.receive(PromptProgress(0, 7, 7, 4))
        for event in events:
            answer.receive(event)
        if error is not None:
            answer.end(error.code, error)
            return
        answer.receive(Finished(0, reason))
        answer.end("ok")

    return run


def texts(*pieces: str) -> list[Event]:
    return [TextDelta(0, piece, (1,)) for piece in pieces]


def thoughts(*pieces: str) -> list[Event]:
    return [
        event for piece in pieces for event in (TextDelta(0, "", (1,)), ReasoningDelta(0, piece))
    ]


def call(name: str, *arguments: str, index: int = 0) -> list[Event]:
    started = ToolCallStarted(0, index, f"call_{index}", name)
    return [started, *(ToolCallDelta(0, index, piece) for piece in arguments)]


# --- the client ---


@define
class Api:
    """What a test asks, and how."""

    kernel: ResponsesKernel
    http: httpx2.AsyncClient
    sdk: openai.AsyncOpenAI
    loose_sdk: openai.AsyncOpenAI
    play = staticmethod(play)
    texts = staticmethod(texts)
    thoughts = staticmethod(thoughts)
    call = staticmethod(call)

    async def post(self, path: str = "", **fields: Any) -> httpx2.Response:
        body = {"model": MODEL, "input": "Hi", **fields}
        content = json.dumps(body).encode()
        return await self.http.post(f"/v1/responses{path}", content=content)

    async def get(self, path: str, **query: Any) -> httpx2.Response:
        return await self.http.get(f"/v1/responses/{path}", params=query)

    async def made(self, **fields: Any) -> dict[str, Any]:
        """Make a response, and return it."""
        answer = await self.post(**fields)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def streamed(self, **fields: Any) -> list[dict[str, Any]]:
        """Make a response as a stream, and return its events."""
        answer = await self.post(stream=True, **fields)
        assert answer.status_code == 200, answer.text
        return split_events(answer.text)

    async def refused(self, **fields: Any) -> dict[str, Any]:
        """Ask for what is refused with 400, and return the error."""
        answer = await self.post(**fields)
        assert answer.status_code == 400, answer.text
        assert not self.kernel.answers
        return answer.json()["error"]

    @property
    def request(self) -> GenerationRequest:
        """The last request to the kernel."""
        return self.kernel.answers[-1].request

    @property
    def prompt(self) -> ChatPrompt:
        found = self.request.prompt
        assert isinstance(found, ChatPrompt)
        return found

    @property
    def said(self) -> list[tuple[str, str]]:
        """The roles and texts of the last request."""
        return [(message.role, message.text) for message in self.prompt.messages]


def split_events(text: str) -> list[dict[str, Any]]:
    """Return the events of a stream; each has its type as its name too."""
    assert text.endswith("\n\n")
    events = []
    for frame in text.split("\n\n")[:-1]:
        name, data = frame.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        events.append(event)
    return events


@pytest.fixture
def kernel() -> ResponsesKernel:
    return ResponsesKernel()


@pytest.fixture
async def api(kernel: ResponsesKernel) -> AsyncIterator[Api]:
    surface = ResponsesSurface(kernel, ResponsesSettings(heartbeat_s=0.05))  # type: ignore[arg-type]
    async with serving(surface) as url:
        sdk, loose = (
            openai.AsyncOpenAI(
                base_url=f"{url}/v1",
                api_key="any",
                max_retries=0,
                _strict_response_validation=strict,
            )
            for strict in (True, False)
        )
        async with httpx2.AsyncClient(base_url=url, timeout=10) as http, sdk, loose:
            yield Api(kernel, http, sdk, loose)


@pytest.fixture
def events() -> Callable[[str], list[dict[str, Any]]]:
    return split_events


@pytest.fixture
def logprob() -> Callable[..., Logprobs]:
    return make_logprob
