"""What clients may send: one definition that parses, validates and documents a request.

A field that is not listed is ignored, wherever it is: ``cache_control``, ``metadata``,
``context_management`` and ``safeguards`` among them. A field marked
:func:`~lmx_kernel.dialect.refused.refused` means something that LMX does not do: it may only carry
a value that asks for nothing.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from attrs import frozen
from msgspec import Meta, Raw

from lmx_anthropic_api.service_tier import AskedTier
from lmx_kernel.dialect.fields import (
    FunctionName,
    JsonObject,
    ModelName,
    StopTexts,
    Temperature,
    TopK,
    TopP,
)
from lmx_kernel.dialect.refused import ABSENT, misplaced, refused

# These are checked later, to say which one it is.
BlockType = Annotated[
    str,
    Meta(
        extra_json_schema={
            "examples": ["text", "tool_use", "tool_result", "thinking", "image", "document"]
        }
    ),
]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


@frozen(kw_only=True)
class TextItem:
    """A text of the system prompt; only the type ``text`` is served."""

    type: BlockType
    text: str | None = None


@frozen(kw_only=True)
class ResultItem:
    """A part of a tool's result.

    :ivar source: of an image or a document (an object), or the address of a search result.
    :ivar content: the texts of a search result.
    :ivar tool_name: the tool that a ``tool_reference`` makes known to the model.
    """

    type: BlockType
    text: str | None = None
    source: JsonObject | str | None = None
    title: str | None = None
    content: list[TextItem] | None = None
    tool_name: str | None = None


@frozen(kw_only=True)
class ContentBlock:
    """A block of a message; which fields it needs depends on its type.

    :ivar id: of a call, as ``name`` and ``input``.
    :ivar tool_use_id: the call that a ``tool_result`` answers.
    :ivar is_error: whether the call failed.
    :ivar thinking: what an assistant thought; a signature is accepted, and ignored.
    :ivar content: of a ``tool_result``, or of a search result.
    :ivar source: as in a part of a result, like ``title`` and ``tool_name``.
    """

    type: BlockType
    text: str | None = None
    id: str | None = None
    name: str | None = None
    input: JsonObject | None = None
    tool_use_id: str | None = None
    is_error: bool | None = None
    thinking: str | None = None
    content: str | list[ResultItem] | JsonObject | None = None
    source: JsonObject | str | None = None
    title: str | None = None
    tool_name: str | None = None


@frozen(kw_only=True)
class Turn:
    """One turn of a conversation. A system's turn may stand anywhere."""

    role: Literal["user", "assistant", "system"]
    content: str | list[ContentBlock]


@frozen(kw_only=True)
class ToolItem:
    """A tool that the model may call.

    :ivar type: ``custom``, or absent; the others are tools of a server, see the README.
    :ivar input_schema: JSON schema of its input; a custom tool needs one.
    :ivar strict: whether a schema that cannot be followed exactly is an error.
    :ivar defer_loading: the model learns of the tool by a ``tool_reference`` in a message.
    """

    type: str | None = None
    name: FunctionName | None = None
    description: str | None = None
    input_schema: JsonObject | None = None
    strict: bool | None = None
    defer_loading: bool | None = None


@frozen(kw_only=True)
class ToolChoiceItem:
    """Whether the model calls tools: as it likes (``auto``), at least one (``any``), the one of the
    given name (``tool``), or none.
    """

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


@frozen(kw_only=True)
class Thinking:
    """Whether the model reasons, and how much.

    :ivar budget_tokens: the most tokens of reasoning; needed by the type ``enabled``.
    :ivar display: changes nothing: what the model thinks is always sent.
    """

    type: Literal["enabled", "adaptive", "disabled"]
    budget_tokens: Annotated[int, Meta(ge=1)] | None = None
    display: str | None = None


@frozen(kw_only=True)
class OutputFormat:
    """What the answer must look like: JSON of a schema."""

    type: Literal["json_schema"]
    schema: JsonObject


@frozen(kw_only=True)
class OutputConfig:
    """How the model answers. ``effort`` is passed to the model's chat template."""

    effort: Effort | None = None
    format: OutputFormat | None = None


@frozen(kw_only=True)
class ForeignFields:
    """Fields of other dialects' bodies, to tell a client that has the wrong path."""

    input: Annotated[Raw, misplaced("/v1/responses")] = ABSENT
    max_output_tokens: Annotated[Raw, misplaced("/v1/responses")] = ABSENT
    prompt: Annotated[Raw, misplaced("/v1/completions")] = ABSENT
    max_completion_tokens: Annotated[Raw, misplaced("/v1/chat/completions")] = ABSENT
    response_format: Annotated[Raw, misplaced("/v1/chat/completions")] = ABSENT
    thread: Any = None


@frozen(kw_only=True)
class CountBody(ForeignFields):
    """The body of ``POST /v1/messages/count_tokens``. Null means the same as absent.

    :ivar output_format: another name of ``output_config.format``.
    :ivar thread: refused, in the way that makes clients send the whole conversation.
    """

    model: ModelName
    messages: Annotated[list[Turn], Meta(min_length=1, max_length=100_000)]
    system: str | list[TextItem] | None = None
    tools: Annotated[list[ToolItem], Meta(max_length=1024)] | None = None
    tool_choice: ToolChoiceItem | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None
    mcp_servers: Annotated[Raw, refused([])] = ABSENT
    container: Annotated[Raw, refused("")] = ABSENT


@frozen(kw_only=True)
class MessagesBody(CountBody):
    """The body of ``POST /v1/messages``. Null means the same as absent.

    :ivar max_tokens: the most tokens of the answer; what the context does not hold is cut.
    :ivar service_tier: ``auto`` for the highest priority that the key may have, ``standard_only``
        for a normal one.
    """

    max_tokens: Annotated[int, Meta(ge=1)]
    stream: bool | None = None
    stop_sequences: StopTexts | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    service_tier: AskedTier | None = None
