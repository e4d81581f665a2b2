"""What each route takes and gives, for the documentation."""

from __future__ import annotations

from typing import Any

from lmx_kernel.interfaces import Operation
from lmx_ollama_api.lines import NDJSON
from lmx_ollama_api.objects import (
    ChatLine,
    EmbedAnswer,
    EmbeddingsAnswer,
    GenerateLine,
    ModelList,
    Progress,
    RunningList,
    ShownModel,
    Status,
    VersionObject,
)
from lmx_ollama_api.refusals import REASONS
from lmx_ollama_api.schema import (
    ChatBody,
    EmbedBody,
    EmbeddingsBody,
    GenerateBody,
    NameBody,
    PullBody,
)


def _lines(path: str, summary: str, body: type[Any], *, result: Any, event: Any) -> Operation:
    return Operation(
        method="POST",
        path=path,
        summary=summary,
        body=body,
        result=result,
        streams=True,
        event=event,
        stream_type=NDJSON,
    )


def _post(path: str, summary: str, body: type[Any] | None = None, result: Any = None) -> Operation:
    return Operation(method="POST", path=path, summary=summary, body=body, result=result)


def _get(path: str, summary: str, result: Any) -> Operation:
    return Operation(method="GET", path=path, summary=summary, result=result)


OPERATIONS = (
    _get("/api/version", "Tell the version of the API", VersionObject),
    _get("/api/tags", "List the models that can be asked", ModelList),
    _get("/api/ps", "List the models that are loaded", RunningList),
    _post("/api/show", "Show one model", NameBody, ShownModel),
    _lines("/api/chat", "Answer a conversation", ChatBody, result=ChatLine, event=ChatLine),
    _lines(
        "/api/generate", "Answer a prompt", GenerateBody, result=GenerateLine, event=GenerateLine
    ),
    _post("/api/embed", "Turn texts into vectors", EmbedBody, EmbedAnswer),
    _post("/api/embeddings", "Turn a text into a vector", EmbeddingsBody, EmbeddingsAnswer),
    *(_post(path, "Not served; says why") for path in REASONS),
    _post("/api/blobs/{digest}", "Not served; says why"),
)
PULL = _lines("/api/pull", "Download a model", PullBody, result=Status, event=Progress)
DELETE = Operation(method="DELETE", path="/api/delete", summary="Delete a model", body=NameBody)
