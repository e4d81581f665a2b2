"""The dialect as the kernel's HTTP server sees it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from attrs import evolve

from lmx_kernel.dialect.error_object import error_body
from lmx_kernel.errors import LmxError
from lmx_kernel.interfaces import Kernel, Operation
from lmx_openai_api.chat import ChatCompletions
from lmx_openai_api.completions import Completions
from lmx_openai_api.count import CountTokens, Parsing
from lmx_openai_api.early_load import EarlyLoads
from lmx_openai_api.embeddings import Embeddings
from lmx_openai_api.models import Model, Models
from lmx_openai_api.objects import (
    ChatChunk,
    ChatCompletion,
    Completion,
    CompletionChunk,
    Done,
    EmbeddingList,
    ModelList,
    ModelObject,
    TokenCount,
)
from lmx_openai_api.requests import chat_request, completion_requests, embedding_request
from lmx_openai_api.respond import Responder
from lmx_openai_api.schema import ChatBody, CompletionBody, EmbeddingBody
from lmx_openai_api.settings import OpenAISettings

_COUNTED: tuple[tuple[str, Parsing[Any]], ...] = (
    ("/v1/chat/completions", (ChatBody, lambda body: [chat_request(body)])),
    ("/v1/completions", (CompletionBody, completion_requests)),
    ("/v1/embeddings", (EmbeddingBody, lambda body: [embedding_request(body)])),
)


_GENERATING = (
    Operation(
        method="POST",
        path="/v1/chat/completions",
        summary="Answer a conversation",
        body=ChatBody,
        result=ChatCompletion,
        streams=True,
        event=ChatChunk | Done,
    ),
    Operation(
        method="POST",
        path="/v1/completions",
        summary="Continue one prompt, or several",
        body=CompletionBody,
        result=Completion,
        streams=True,
        event=CompletionChunk | Done,
    ),
    Operation(
        method="POST",
        path="/v1/embeddings",
        summary="Turn texts into vectors",
        body=EmbeddingBody,
        result=EmbeddingList,
    ),
)
_LISTING = (
    Operation(
        method="GET",
        path="/v1/models",
        summary="List the models that can be asked",
        result=ModelList,
    ),
    Operation(
        method="GET",
        path="/v1/models/{name:path}",
        summary="Show one model",
        result=ModelObject,
    ),
)


class OpenAISurface:
    """Everything below ``/v1``."""

    name = "openai"
    prefix = "/v1"
    scope = "inference"

    def __init__(self, kernel: Kernel, settings: OpenAISettings) -> None:
        self._kernel = kernel
        self._settings = settings

    def routes(self) -> Iterable[tuple[str, object]]:
        """Return pairs of a falcon URI template and a resource."""
        loads = EarlyLoads(self._kernel)
        responder = Responder(self._kernel, self._settings, loads)
        return [
            ("/v1/chat/completions", ChatCompletions(responder)),
            ("/v1/completions", Completions(responder)),
            ("/v1/embeddings", Embeddings(loads)),
            *((f"{path}/count_tokens", CountTokens(self._kernel, *how)) for path, how in _COUNTED),
            ("/v1/models", Models(self._kernel, self._settings)),
            ("/v1/models/{name:path}", Model(self._kernel)),
        ]

    def operations(self) -> Iterable[Operation]:
        """Return what each route takes and gives."""
        return [*_GENERATING, *(_counting(path, body) for path, (body, _) in _COUNTED), *_LISTING]

    def render_error(self, error: LmxError) -> Mapping[str, Any]:
        """Return the only error body whose message the OpenAI clients show."""
        return error_body(error)

    def example(self, url: str, model: str) -> str:
        """Return a line to try in a shell."""
        messages = [{"role": "user", "content": "Hello!"}]
        body = msgspec.json.encode({"model": model, "messages": messages}).decode()
        return f"curl {url}/v1/chat/completions -d {shlex.quote(body)}"


class BareSurface(OpenAISurface):
    """The paths of the dialect that begin with ``prefix`` when ``/v1`` is left out."""

    def __init__(self, kernel: Kernel, settings: OpenAISettings, prefix: str) -> None:
        super().__init__(kernel, settings)
        self.name = f"openai{prefix.replace('/', '_')}"
        self.prefix = prefix

    def routes(self) -> Iterable[tuple[str, object]]:
        """Return pairs of a falcon URI template and a resource."""
        bare = ((path.removeprefix("/v1"), resource) for path, resource in super().routes())
        return [(path, resource) for path, resource in bare if self._is_own(path)]

    def operations(self) -> Iterable[Operation]:
        """Return what each route takes and gives."""
        bare = (evolve(one, path=one.path.removeprefix("/v1")) for one in super().operations())
        return [one for one in bare if self._is_own(one.path)]

    def _is_own(self, path: str) -> bool:
        return f"{path}/".startswith(f"{self.prefix}/")


BARE_PREFIXES = ("/chat", "/completions", "/embeddings", "/models")


def _counting(path: str, body: type[Any]) -> Operation:
    return Operation(
        method="POST",
        path=f"{path}/count_tokens",
        summary=f"Count what a request to {path} would take",
        body=body,
        result=TokenCount,
    )
