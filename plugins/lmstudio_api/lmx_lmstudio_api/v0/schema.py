"""What clients of ``/api/v0`` may send: the bodies of the OpenAI dialect, and a time to live."""

from __future__ import annotations

from typing import Annotated

from attrs import frozen
from lmx_openai_api.schema import ChatBody, CompletionBody, EmbeddingBody
from msgspec import Meta

Seconds = Annotated[float, Meta(gt=0, le=10**9)]


@frozen(kw_only=True)
class ChatBodyV0(ChatBody):
    """The body of ``POST /api/v0/chat/completions``.

    :ivar ttl: if this request loads the model, it is unloaded after so many seconds without one.
    """

    ttl: Seconds | None = None


@frozen(kw_only=True)
class CompletionBodyV0(CompletionBody):
    """The body of ``POST /api/v0/completions``; ``ttl`` as for a conversation."""

    ttl: Seconds | None = None


@frozen(kw_only=True)
class EmbeddingBodyV0(EmbeddingBody):
    """The body of ``POST /api/v0/embeddings``; ``ttl`` as for a conversation."""

    ttl: Seconds | None = None
