"""What clients of ``POST /api/v1/chat`` send. A field that is not listed is ignored."""

from __future__ import annotations

from typing import Annotated, Literal

from attrs import frozen
from lmx_openai_api.schema import Seconds
from msgspec import Meta, Raw

from lmx_kernel.dialect.fields import (
    INT32_MAX,
    MinP,
    ModelName,
    RepetitionPenalty,
    Temperature,
    TopK,
    TopP,
)
from lmx_kernel.dialect.refused import ABSENT, misplaced, refused
from lmx_lmstudio_api.v1.model_schema import ContextLength

# It is checked later, to say which one it is.
ItemType = Annotated[str, Meta(extra_json_schema={"enum": ["message", "text"]})]


@frozen(kw_only=True)
class ChatInput:
    """A part of what the user says; only text is served.

    :ivar type: ``message`` and ``text`` mean the same.
    """

    type: ItemType
    content: str | None = None


@frozen(kw_only=True)
class StatefulChatBody:
    """The body of ``POST /api/v1/chat``. Null means the same as absent.

    :ivar input: what the user says.
    :ivar system_prompt: absent keeps that of the chat which goes on.
    :ivar reasoning: absent leaves it to the chat template; ``on`` to the template how much.
    :ivar context_length: if this request loads the model, tokens that one request may use.
    :ivar ttl: if this request loads the model, it is unloaded after so many seconds without one.
    :ivar store: whether the chat may go on after this answer; it may by default.
    :ivar previous_response_id: of the answer after which the chat goes on.
    """

    model: ModelName
    input: str | Annotated[list[ChatInput], Meta(min_length=1, max_length=1024)]
    system_prompt: str | None = None
    stream: bool | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    min_p: MinP | None = None
    repeat_penalty: RepetitionPenalty | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=INT32_MAX)] | None = None
    reasoning: Literal["off", "low", "medium", "high", "on"] | None = None
    context_length: ContextLength | None = None
    ttl: Seconds | None = None
    store: bool | None = None
    previous_response_id: Annotated[str, Meta(max_length=128)] | None = None
    integrations: Annotated[Raw, refused([])] = ABSENT
    messages: Annotated[Raw, misplaced("/v1/chat/completions")] = ABSENT

    @property
    def is_kept(self) -> bool:
        """Whether the answer is kept."""
        return self.store is not False
