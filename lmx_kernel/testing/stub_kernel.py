"""A kernel that answers as a test scripts it, and dialects in a real HTTP server over it."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from attrs import define, field
from websockets.asyncio.client import connect

from lmx_kernel.access.door import Authorize
from lmx_kernel.errors import LmxError, ModelNotFoundError
from lmx_kernel.http.app import build_app
from lmx_kernel.http.error_rendering import ErrorRenderer
from lmx_kernel.http.health import Health
from lmx_kernel.http.server import HttpServer
from lmx_kernel.http.settings import ServerSettings
from lmx_kernel.http.shell import Shell
from lmx_kernel.http.surface_table import SurfaceTable
from lmx_kernel.interfaces import ApiSurface, HttpRequest
from lmx_kernel.runtime.answer import LiveAnswer
from lmx_kernel.types import (
    DEFAULT_TERMS,
    ChatPrompt,
    EmbeddingInput,
    Embeddings,
    EncodedPrompt,
    Finished,
    GenerationRequest,
    Logprobs,
    ModelCard,
    ModelName,
    PromptProgress,
    Terms,
    TextDelta,
    TokenLogprob,
)

MODEL = "acme/Tiny-1B"
FINGERPRINT = "fp_0123456789ab"
S = TypeVar("S")
Play = Callable[[LiveAnswer], None]
"""Writes an answer, or as much of it as the test wants to be there."""


def stub_card(name: str, problem: str | None = None) -> ModelCard:
    """Return the card of a model that nobody has."""
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
    """Return a token with the alternatives that were less likely than it."""
    top = (TokenLogprob(i, other, -2.0 - i) for i, other in enumerate((text, *others)))
    return Logprobs(TokenLogprob(7, text, -0.5), tuple(top))


def hello(answer: LiveAnswer) -> None:
    """Answer all candidates with "Hello" in two pieces, the second after a token of no text."""
    answer.admit(7, fingerprint=FINGERPRINT)
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
    """As much of a kernel as dialects need; it answers as ``play`` does it.

    :ivar refusal: raised instead.
    :ivar asked: set when a request came.
    :ivar closed: set when a running answer was closed.
    :ivar embedded: the inputs that were last embedded.
    :ivar key: the name of the key that requests come with.
    :ivar terms: those of the key.
    :ivar counted: the requests of which the tokens were counted.
    """

    play: Play = hello
    refusal: LmxError | None = None
    key: str = ""
    terms: Terms = DEFAULT_TERMS
    answers: list[LiveAnswer] = field(factory=list)
    embedded: list[EmbeddingInput] = field(factory=list)
    counted: list[GenerationRequest] = field(factory=list)
    asked: asyncio.Event = field(factory=asyncio.Event)
    closed: asyncio.Event = field(factory=asyncio.Event)
    cards: list[ModelCard] = field(
        factory=lambda: [stub_card(MODEL), stub_card("broken", "its file is cut off")]
    )

    @property
    def caller(self) -> HttpRequest:
        """As which surfaces see their client."""
        return HttpRequest(
            method="POST", path="/", headers={}, client="", key=self.key, terms=self.terms
        )

    @property
    def request(self) -> GenerationRequest:
        """The first request that came."""
        return self.answers[0].request

    @property
    def model_settings(self) -> StubKernel:
        """Itself: it has names."""
        return self

    def settings(self, cls: type[S]) -> S:
        """Return a section of the config with its defaults."""
        return cls()

    def names(self) -> list[ModelName]:
        """Return the names of the models that can be used."""
        return [ModelName(name=card.id, card=card) for card in self.cards if card.problem is None]

    def models(self) -> list[ModelCard]:
        """Return ``cards``."""
        return self.cards

    def find(self, name: str) -> ModelCard:
        """Return a model's card.

        :raises ModelNotFoundError: there is none of that name.
        """
        for known in self.cards:
            if known.id.lower() == name.lower():
                return known
        raise ModelNotFoundError(f"no {name}; there are: {MODEL}", param="model")

    async def generate(self, request: GenerationRequest) -> LiveAnswer:
        """Return what ``play`` writes.

        :raises LmxError: the refusal, if there is one.
        """
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

    async def encode(self, request: GenerationRequest) -> EncodedPrompt:
        """Return three tokens and the text of all messages, and keep what was asked."""
        if self.refusal:
            raise self.refusal
        self.counted.append(request)
        prompt = request.prompt
        texts = [one.text for one in prompt.messages] if isinstance(prompt, ChatPrompt) else []
        return EncodedPrompt("".join(texts), (1, 2, 3))

    def model_statuses(self) -> list[Any]:
        """Return the models of ``status``, which a test's kernel may have."""
        return list(self.status().models)  # type: ignore[attr-defined]

    def _close(self, answer: LiveAnswer) -> None:
        answer.end("cancelled")
        self.closed.set()


def make_health() -> Health:
    """Return the health paths of a server that is well."""
    return Health(name="x", version="0", docs="", is_ready=lambda: True, status=dict)


@asynccontextmanager
async def serving(
    *surfaces: ApiSurface, authorize: Authorize = lambda request: request, **settings: Any
) -> AsyncIterator[str]:
    """Serve dialects on a free port; gives the URL.

    :param authorize: as :meth:`Door.admit`; by default, no key is needed.
    :param settings: fields of :class:`ServerSettings`.
    """
    server_settings = ServerSettings(port=0, **settings)
    app, table = build_app(surfaces, make_health()), SurfaceTable()
    table.replace(app.served)
    shell = Shell(app, server_settings, ErrorRenderer(table), authorize)
    server = HttpServer(server_settings, shell)
    await server.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        await server.stop()


def websocket(url: str, path: str, key: str = "", **options: Any) -> connect:
    """Return a client's connection to a websocket: a context, or await it.

    :param url: as :func:`serving` gives it, or a daemon's.
    :param key: the API key; "" for none.
    :param options: more arguments of ``websockets.asyncio.client.connect``.
    """
    headers = {"authorization": f"Bearer {key}"} if key else {}
    url = f"ws{url.removeprefix('http')}{path}"
    return connect(url, additional_headers=headers, proxy=None, compression=None, **options)
