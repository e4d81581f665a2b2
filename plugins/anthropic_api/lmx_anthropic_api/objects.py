"""What clients are answered: the objects and the events of this dialect, as they are in JSON."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

from msgspec import UNSET, Struct, UnsetType

from lmx_anthropic_api.service_tier import Tier

StopReason = Literal[
    "end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"
]


# --- messages ---


class ThinkingBlock(Struct, tag_field="type", tag="thinking"):
    """What the model thought. ``signature`` is empty: nothing is signed here."""

    thinking: str
    signature: str = ""


class TextBlock(Struct, tag_field="type", tag="text"):
    """Text for the user."""

    text: str


class ToolUseBlock(Struct, tag_field="type", tag="tool_use"):
    """A call of a tool."""

    id: str
    name: str
    input: dict[str, Any]


Block = ThinkingBlock | TextBlock | ToolUseBlock


class OutputDetails(Struct):
    """``thinking_tokens``: how many tokens of the answer were reasoning."""

    thinking_tokens: int


class UsageObject(Struct):
    """The tokens of a request; those of the prompt are the sum of all that are called input.

    :ivar input_tokens: of the prompt, as far as they were computed for this request.
    :ivar cache_read_input_tokens: of the prompt, known from earlier requests.
    :ivar cache_creation_input_tokens: always 0: what is computed is cached in any case.
    :ivar service_tier: what the request got; not repeated at the end of a stream.
    """

    input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int = 0
    output_tokens_details: OutputDetails | UnsetType = UNSET
    service_tier: Tier | UnsetType = UNSET


class MessageObject(Struct, tag_field="type", tag="message"):
    """An answer.

    :ivar stop_reason: why it ended; null at the beginning of a stream.
    :ivar stop_sequence: the stop sequence that ended it.
    """

    id: str
    model: str
    content: list[Block]
    usage: UsageObject
    stop_reason: StopReason | None = None
    stop_sequence: str | None = None
    role: Literal["assistant"] = "assistant"


class TokenCount(Struct):
    """The answer of ``count_tokens``."""

    input_tokens: int


# --- streams ---


class TextDelta(Struct, tag_field="type", tag="text_delta"):
    """More text."""

    text: str


class ThinkingDelta(Struct, tag_field="type", tag="thinking_delta"):
    """More reasoning."""

    thinking: str


class SignatureDelta(Struct, tag_field="type", tag="signature_delta"):
    """The end of a reasoning."""

    signature: str


class InputJsonDelta(Struct, tag_field="type", tag="input_json_delta"):
    """More of the JSON text of a call's input."""

    partial_json: str


class MessageStart(Struct, tag_field="type", tag="message_start"):
    """The first event but for pings: the message, without its content."""

    message: MessageObject


class BlockStart(Struct, tag_field="type", tag="content_block_start"):
    """A block begins; its text or input is empty yet."""

    index: int
    content_block: Block


class BlockDelta(Struct, tag_field="type", tag="content_block_delta"):
    """More of a block."""

    index: int
    delta: TextDelta | ThinkingDelta | SignatureDelta | InputJsonDelta


class BlockStop(Struct, tag_field="type", tag="content_block_stop"):
    """A block ends."""

    index: int


class Stop(Struct):
    """Why a message ended."""

    stop_reason: StopReason
    stop_sequence: str | None


class MessageDelta(Struct, tag_field="type", tag="message_delta"):
    """The end of the content, and the whole usage."""

    delta: Stop
    usage: UsageObject


class MessageStop(Struct, tag_field="type", tag="message_stop"):
    """The last event."""


class Ping(Struct, tag_field="type", tag="ping"):
    """A sign of life; may come at any time."""


StreamEvent = MessageStart | BlockStart | BlockDelta | BlockStop | MessageDelta | MessageStop | Ping


# --- models ---


class ModelObject(Struct, tag_field="type", tag="model"):
    """A model that can be asked.

    :ivar created_at: of the list, as the files have no such date.
    :ivar max_input_tokens: the context that it was trained for; it may be loaded with
        less.
    """

    id: str
    display_name: str
    created_at: str
    max_input_tokens: int
    lifecycle: Literal["active"] = "active"


class ModelPage(Struct):
    """A part of the models.

    :ivar has_more: whether others follow after ``last_id``, or, where a page is asked for by what
        comes after it, stand before ``first_id``.
    """

    data: list[ModelObject]
    has_more: bool
    first_id: str | None
    last_id: str | None


# --- errors ---


class Details(TypedDict):
    """What the SDK reads of some errors."""

    error_code: str
    unsupported: list[str]


class ErrorObject(TypedDict):
    """What is wrong."""

    type: str
    message: str
    details: NotRequired[Details]


class ErrorBody(TypedDict):
    """The body of a failed request, and the data of a stream's event ``error``."""

    type: Literal["error"]
    error: ErrorObject
