"""What clients are answered: the objects of this dialect, as they are in JSON."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

from lmx_kernel.dialect.fields import JsonObject

ItemStatus = Literal["in_progress", "completed", "incomplete"]
Status = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]


class InputDetails(TypedDict):
    """Tokens of the prompt.

    :ivar cached_tokens: how many were known from earlier requests.
    :ivar cache_write_tokens: 0: keeping tokens for later costs nothing.
    """

    cached_tokens: int
    cache_write_tokens: int


class OutputDetails(TypedDict):
    """``reasoning_tokens``: how many tokens of the answer were reasoning."""

    reasoning_tokens: int


class UsageObject(TypedDict):
    """The tokens of a response."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class FailureObject(TypedDict):
    """Why a response failed."""

    code: str
    message: str


class IncompleteDetails(TypedDict):
    """Why a response is not complete."""

    reason: Literal["max_output_tokens"]


class TokenObject(TypedDict):
    """A token that was possible, and its log-probability; -9999 stands for none at all."""

    token: str
    logprob: float
    bytes: list[int]


class ChosenToken(TokenObject):
    """A token of the text, and those that were likely in its place."""

    top_logprobs: list[TokenObject]


class OutputPart(TypedDict):
    """A part of an item: its type is output_text, reasoning_text or summary_text.

    :ivar annotations: of an output_text; always empty.
    """

    type: str
    text: str
    annotations: NotRequired[list[Any]]
    logprobs: NotRequired[list[ChosenToken]]


class OutputItem(TypedDict):
    """What the model produced: an item of the type message, reasoning, function_call or
    custom_tool_call, with the fields of its type.

    :ivar arguments: of a function: JSON text, as the model wrote it.
    :ivar input: of a custom tool: free text.
    :ivar namespace: of the tool that is called, if it has one.
    :ivar encrypted_content: the reasoning, to be sent back as it is; null unless asked for.
    """

    type: str
    id: str
    status: ItemStatus
    role: NotRequired[Literal["assistant"]]
    content: NotRequired[list[OutputPart]]
    summary: NotRequired[list[OutputPart]]
    encrypted_content: NotRequired[str | None]
    call_id: NotRequired[str]
    name: NotRequired[str]
    namespace: NotRequired[str]
    arguments: NotRequired[str]
    input: NotRequired[str]


class ResponseObject(TypedDict):
    """A response.

    :ivar created_at: in seconds since 1970, as ``completed_at``.
    :ivar error: why it failed; null otherwise.
    :ivar usage: null until it has ended.
    """

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Status
    incomplete_details: IncompleteDetails | None
    model: str
    previous_response_id: str | None
    instructions: str | None
    output: list[OutputItem]
    error: FailureObject | None
    tools: list[JsonObject]
    tool_choice: str | JsonObject
    truncation: str
    parallel_tool_calls: bool
    text: JsonObject
    top_p: float | None
    presence_penalty: float
    frequency_penalty: float
    top_logprobs: int
    temperature: float | None
    reasoning: JsonObject
    usage: UsageObject | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    store: bool
    background: bool
    service_tier: str
    metadata: dict[str, str]
    safety_identifier: str | None
    prompt_cache_key: str | None
    user: str | None


class EventObject(TypedDict):
    """The data of a stream's event, with the fields of its type.

    :ivar sequence_number: grows with every event.
    :ivar part: what begins or ends: a part of an item's content, or of its summary.
    """

    type: str
    sequence_number: int
    response: NotRequired[ResponseObject]
    item: NotRequired[OutputItem]
    part: NotRequired[OutputPart]
    output_index: NotRequired[int]
    content_index: NotRequired[int]
    summary_index: NotRequired[int]
    item_id: NotRequired[str]
    name: NotRequired[str]
    delta: NotRequired[str]
    text: NotRequired[str]
    arguments: NotRequired[str]
    input: NotRequired[str]
    logprobs: NotRequired[list[ChosenToken]]


class ItemList(TypedDict):
    """A page of the input items of a response; ids are null if there are none."""

    object: Literal["list"]
    data: list[JsonObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedObject(TypedDict):
    """A response that is kept no longer."""

    id: str
    object: Literal["response"]
    deleted: Literal[True]


class InputTokens(TypedDict):
    """How many tokens the prompt of a request has."""

    object: Literal["response.input_tokens"]
    input_tokens: int
