"""``/api/v0`` as the kernel's HTTP server sees it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lmx_openai_api.chat import ChatCompletions
from lmx_openai_api.completions import Completions
from lmx_openai_api.early_load import EarlyLoads
from lmx_openai_api.objects import Done, EmbeddingList
from lmx_openai_api.schema import ChatBody, CompletionBody, EmbeddingBody
from lmx_openai_api.settings import OpenAISettings

from lmx_kernel.dialect.error_object import error_body
from lmx_kernel.errors import LmxError
from lmx_kernel.interfaces import Kernel, Operation
from lmx_lmstudio_api.settings import LMStudioSettings
from lmx_lmstudio_api.v0.models import Model, Models
from lmx_lmstudio_api.v0.objects import (
    DetailedChat,
    DetailedChatChunk,
    DetailedCompletion,
    DetailedCompletionChunk,
    LMStudioModel,
    LMStudioModels,
)
from lmx_lmstudio_api.v0.respond import DetailedResponder, EmbeddingsV0

PREFIX = "/api/v0"
_OPERATIONS = (
    Operation(
        method="GET",
        path=f"{PREFIX}/models",
        summary="List the models with their state",
        result=LMStudioModels,
    ),
    Operation(
        method="GET",
        path=f"{PREFIX}/models/{{model:path}}",
        summary="Show one model with its state",
        result=LMStudioModel,
    ),
    Operation(
        method="POST",
        path=f"{PREFIX}/chat/completions",
        summary="Answer a conversation, with figures",
        body=ChatBody,
        result=DetailedChat,
        streams=True,
        event=DetailedChatChunk | Done,
    ),
    Operation(
        method="POST",
        path=f"{PREFIX}/completions",
        summary="Continue one prompt, or several, with figures",
        body=CompletionBody,
        result=DetailedCompletion,
        streams=True,
        event=DetailedCompletionChunk | Done,
    ),
    Operation(
        method="POST",
        path=f"{PREFIX}/embeddings",
        summary="Turn texts into vectors",
        body=EmbeddingBody,
        result=EmbeddingList,
    ),
)


class LMStudioV0:
    """LM Studio's API, version 0: everything below ``/api/v0``."""

    name = "lmstudio_v0"
    prefix = PREFIX
    scope = "inference"

    def __init__(self, kernel: Kernel, settings: LMStudioSettings) -> None:
        self._kernel = kernel
        self._settings = OpenAISettings(heartbeat_s=settings.heartbeat_s)

    def routes(self) -> Iterable[tuple[str, object]]:
        """Return pairs of a falcon URI template and a resource."""
        loads = EarlyLoads(self._kernel)
        responder = DetailedResponder(self._kernel, self._settings, loads)
        return [
            (f"{PREFIX}/models", Models(self._kernel)),
            (f"{PREFIX}/models/{{model:path}}", Model(self._kernel)),
            (f"{PREFIX}/chat/completions", ChatCompletions(responder)),
            (f"{PREFIX}/completions", Completions(responder)),
            (f"{PREFIX}/embeddings", EmbeddingsV0(loads)),
        ]

    def operations(self) -> Iterable[Operation]:
        """Return what each route takes and gives."""
        return _OPERATIONS

    def render_error(self, error: LmxError) -> Mapping[str, Any]:
        """Return the error body of the OpenAI dialect, which this API shares."""
        return error_body(error)

    def example(self, url: str, model: str) -> str:
        """Return "": the OpenAI dialect has an example of the same request."""
        return ""
