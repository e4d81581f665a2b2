"""The surface in a real HTTP server, over a kernel that answers as a test scripts it."""

from __future__ import annotations

import asyncio
import json
from array import array
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
import uvloop
from attrs import define, field
from lmx_openai_api.settings import OpenAISettings
from lmx_openai_api.surface import OpenAISurface

from lmx_kernel.errors import LmxError, ModelNotFoundError
from lmx_kernel.http.app import build_app
from lmx_kernel.http.error_rendering import ErrorRenderer
from lmx_kernel.http.health import Health
from lmx_kernel.http.server import HttpServer
from lmx_kernel.http.settings import ServerSettings
from lmx_kernel.http.shell import Shell
from lmx_kernel.http.surface_table import SurfaceTable
from lmx_kernel.runtime.answer import LiveAnswer
from lmx_kernel.types import (
    EmbeddingInput,
    Embeddings,
    Finished,
    GenerationRequest,
    Logprobs,
    ModelCard,
    ModelName,
    PromptProgress,
    TextDelta,
    TokenLogprob,
)

MODEL = "acme/Tiny-1B"
Play = Callable[[LiveAnswer], None]


def pytest_asyncio_loop_factories(config: object, item: object) -> dict[str, Any]:
    return {"uvloop": uvloop.new_event_loop}  # as the daemon


def card(name: str, problem: str | None = None) -> ModelCard:
    return ModelCard(
        id=name,
        backend="stub",
        path=Path(name),
        format="stub",
        architecture="stub",
        size_bytes=1,
        context_length=100,
        problem=problem,
    )


def make_logprob(text: bytes, *others: bytes) -> Logprobs:
    top = (TokenLogprob(i, other, -2.0 - i) for i, other in enumerate((text, *others)))
    return Logprobs(TokenLogprob(7, text, -0.5), tuple(top))


def hello(answer: LiveAnswer) -> None:
    """Answer all candidates with "Hello" in two pieces, the second after a token of no text."""
    answer.admit(7)
    answer.start()
    for index in range(answer.request.candidates):
        answer.receive(PromptProgress(index, 7, 7, 4))
        answer.receive(TextDelta(index, "Hel", (1,), (make_logprob(b"Hel", b"No"),)))
        answer.receive(TextDelta(index, "", (2,), (make_logprob(b"l", b"x"),)))
        answer.receive(TextDelta(index, "lo", (3,), (make_logprob(b"o", b"y"),)))
        answer.receive(Finished(index, "stop"))
    answer.end("ok")


@define
class StubKernel:
    """Answers as ``play`` does it.

    :ivar refusal: raised instead.
    :ivar asked: set when a request came.
    :ivar closed: set when a running answer was closed.
    :ivar embedded: the inputs that were last embedded.
    :ivar counted: the requests of which the tokens were counted.
    """

    play: Play = hello
    refusal: LmxError | None = None
    answers: list[LiveAnswer] = field(factory=list)
    embedded: list[EmbeddingInput] = field(factory=list)
    counted: list[GenerationRequest] = field(factory=list)
    asked: asyncio.Event = field(factory=asyncio.Event)
    closed: asyncio.Event = field(factory=asyncio.Event)
    cards: list[ModelCard] = field(
        factory=lambda: [card(MODEL), card("broken", "its file is cut off")]
    )

    @property
    def request(self) -> GenerationRequest:
        return self.answers[0].request

    def models(self) -> list[ModelCard]:
        return self.cards

    @property
    def model_settings(self) -> StubKernel:
        return self

    def names(self) -> list[ModelName]:
        """Return the usable models."""
        return [ModelName(name=card.id, card=card) for card in self.cards if card.problem is None]

    def find(self, name: str) -> ModelCard:
        for known in self.cards:
            if known.id.lower() == name.lower():
                return known
        raise ModelNotFoundError(f"no {name}; there are: {MODEL}", param="model")

    async def generate(self, request: GenerationRequest) -> LiveAnswer:
        if self.refusal:
            raise self.refusal
        answer = LiveAnswer(request, self.find(request.model).id, on_close=self._close)
        self.answers.append(answer)
        self.play(answer)
        self.asked.set()
        return answer

    async def embed(self, model: str, inputs: Sequence[EmbeddingInput]) -> Embeddings:
        """Return a vector of length 1 for each input: 3/5, 4/5 and then nothing."""
        if self.refusal:
            raise self.refusal
        self.embedded = list(inputs)
        vectors = tuple(array("f", [0.6, 0.8, 0.0, 0.0]) for _ in inputs)
        return Embeddings(
            model=self.find(model).id, vectors=vectors, prompt_tokens=3 * len(vectors)
        )

    async def count_tokens(self, request: GenerationRequest) -> int:
        """Count seven tokens, and keep what was asked."""
        if self.refusal:
            raise self.refusal
        self.counted.append(request)
        return 7

    def _close(self, answer: LiveAnswer) -> None:
        answer.end("cancelled")
        self.closed.set()


@define
class Api:
    """What a test asks, and how."""

    kernel: StubKernel
    surface: OpenAISurface
    http: httpx2.AsyncClient
    sdk: openai.AsyncOpenAI

    async def post(self, path: str, body: Any, **kwargs: Any) -> httpx2.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.http.post(f"/v1/{path}", content=content, **kwargs)

    async def chat(self, **fields: Any) -> httpx2.Response:
        return await self.post("chat/completions", chat_body(**fields))

    def open(self, path: str, body: dict[str, Any]) -> Any:
        """Open a stream, and read it as it comes."""
        return self.http.stream("POST", f"/v1/{path}", json={**body, "stream": True})

    @asynccontextmanager
    async def leaving(self, path: str, body: dict[str, Any]) -> AsyncIterator[None]:
        """Send a request, and leave at the end of the block."""
        task = asyncio.create_task(self.post(path, body))
        yield
        task.cancel()
        await asyncio.wait([task])

    hello = staticmethod(hello)

    async def complete(self, **fields: Any) -> httpx2.Response:
        return await self.post("completions", {"model": MODEL, "prompt": "Say", **fields})


def chat_body(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], **fields}


def make_health() -> Health:
    return Health(name="x", version="0", docs="", is_ready=lambda: True, status=dict)


def split_frames(text: str) -> list[str]:
    """Return the data of all frames; whatever else there is must be a comment."""
    assert text.endswith("\n\n")
    found = [frame for frame in text.split("\n\n")[:-1] if not frame.startswith(":")]
    assert all(frame.startswith("data: ") and "\n" not in frame for frame in found)
    return [frame.removeprefix("data: ") for frame in found]


def split_chunks(text: str) -> list[dict[str, Any]]:
    """Return the chunks of a stream that ended well."""
    *found, last = split_frames(text)
    assert last == "[DONE]"
    return [json.loads(frame) for frame in found]


@pytest.fixture
def surface() -> OpenAISurface:
    return OpenAISurface(StubKernel(), OpenAISettings(heartbeat_s=0.05))  # type: ignore[arg-type]


@pytest.fixture
async def api(surface: OpenAISurface) -> AsyncIterator[Api]:
    settings = ServerSettings(port=0)
    app = build_app([surface], make_health())
    shell = Shell(app, settings, ErrorRenderer(SurfaceTable([surface])), lambda request: "")
    server = HttpServer(settings, shell)
    await server.start()
    url = f"http://127.0.0.1:{server.port}"
    sdk = openai.AsyncOpenAI(
        base_url=f"{url}/v1", api_key="any", max_retries=0, _strict_response_validation=True
    )
    async with httpx2.AsyncClient(base_url=url, timeout=10) as http, sdk:
        yield Api(surface._kernel, surface, http, sdk)  # type: ignore[arg-type]
    await server.stop()


@pytest.fixture
def kernel(surface: OpenAISurface) -> StubKernel:
    return surface._kernel  # type: ignore[return-value]


@pytest.fixture
def frames() -> Callable[[str], list[str]]:
    return split_frames


@pytest.fixture
def chunks() -> Callable[[str], list[dict[str, Any]]]:
    return split_chunks


@pytest.fixture
def logprob() -> Callable[..., Logprobs]:
    return make_logprob


@pytest.fixture
def start_only(surface: OpenAISurface) -> Callable[[Any], Any]:
    """Post a chat to the bare app, over a connection that breaks when the headers are sent."""
    app = build_app([surface], make_health())

    async def post(body: Any) -> None:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": json.dumps(body).encode()}

        async def send(message: Any) -> None:
            raise ConnectionResetError

        path = "/v1/chat/completions"
        scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b""}
        await app({**scope, "http_version": "1.1", "asgi": {"version": "3.0"}}, receive, send)

    return post
