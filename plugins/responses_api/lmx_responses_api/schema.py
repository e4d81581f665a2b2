"""What clients may send: one definition that parses, validates and documents a request.

A field that is not listed is ignored. A field marked :func:`~lmx_kernel.dialect.refused.refused`
is known to mean something LMX does not do: it may only carry a value that asks for nothing.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from attrs import frozen
from msgspec import Meta, Raw

from lmx_kernel.dialect.fields import (
    INT32_MAX,
    Effort,
    JsonObject,
    MinP,
    ModelName,
    Penalty,
    RepetitionPenalty,
    Seed,
    Temperature,
    TopK,
    TopLogprobs,
    TopP,
)
from lmx_kernel.dialect.refused import ABSENT, misplaced, refused

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
ENCRYPTED = "reasoning.encrypted_content"
LOGPROBS = "message.output_text.logprobs"

Positive = Annotated[int, Meta(ge=1, le=INT32_MAX)]
InputItem = Annotated[
    JsonObject,
    Meta(
        description="A message (`role` and `content`, with or without `type`), or an item of the "
        "type function_call, function_call_output, custom_tool_call, custom_tool_call_output, "
        "reasoning or item_reference."
    ),
]
ToolObject = Annotated[
    JsonObject,
    Meta(
        description="A tool of the type function, custom or namespace. Hosted tools are not "
        "served: web_search and unknown ones are left out, others are refused."
    ),
]
ChosenTool = Annotated[
    JsonObject,
    Meta(description="A tool that must be called: `type` and `name`; or allowed_tools."),
]
MetadataKey = Annotated[str, Meta(max_length=64)]
MetadataValue = Annotated[str, Meta(max_length=512)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Meta(max_length=16)]


@frozen(kw_only=True)
class TextFormat:
    """What the text must look like.

    :ivar schema: needed if the type is ``json_schema``. ``name``, ``description`` and ``strict``
        change nothing: it is followed.
    """

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str | None = None
    description: str | None = None
    schema: JsonObject | None = None
    strict: bool | None = None


@frozen(kw_only=True)
class TextOptions:
    """How the text is written; ``verbosity`` is accepted and has no effect."""

    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


@frozen(kw_only=True)
class ReasoningOptions:
    """How an answer is reasoned about.

    :ivar effort: what the chat template makes of it; ``none`` for no reasoning at all.
    :ivar summary: whether reasoning is given as its own summary too, which is as long.
    :ivar generate_summary: the old name of ``summary``.
    """

    effort: Effort | None = None
    summary: Literal["auto", "concise", "detailed", "none"] | None = None
    generate_summary: Literal["auto", "concise", "detailed", "none"] | None = None


@frozen(kw_only=True)
class ResponseBody:
    """The body of ``POST /v1/responses``. Null means the same as absent.

    :ivar input: a text, or items; may be empty.
    :ivar previous_response_id: the kept response whose conversation goes on.
    :ivar store: whether the response is kept for later requests (true).
    :ivar background: answer at once, and compute the response whoever is connected.
    :ivar include: what an answer has beyond the usual: ``reasoning.encrypted_content``,
        ``message.output_text.logprobs``. Other values have no effect.
    :ivar max_output_tokens: reasoning included; absent for as many as the context holds.
    :ivar max_tool_calls: of hosted tools; LMX has none, so it has no effect.
    :ivar lmx_reproducible: refuse the request where the same seed is not sure to give the same
        answer, bit for bit.
    :ivar truncation: ``auto`` drops the oldest messages until the prompt fits; otherwise one that
        is too long is refused.
    """

    model: ModelName
    input: str | Annotated[list[InputItem], Meta(max_length=4096)] | None = None
    instructions: str | None = None
    previous_response_id: Annotated[str, Meta(max_length=128)] | None = None
    stream: bool | None = None
    store: bool | None = None
    background: bool | None = None
    include: Annotated[list[str], Meta(max_length=32)] | None = None
    tools: Annotated[list[ToolObject], Meta(max_length=1024)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ChosenTool | None = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: Positive | None = None
    max_tool_calls: Positive | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    min_p: MinP | None = None
    repetition_penalty: RepetitionPenalty | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    seed: Seed | None = None
    lmx_reproducible: bool | None = None
    top_logprobs: TopLogprobs | None = None
    truncation: Literal["auto", "disabled"] | None = None
    metadata: Metadata | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    user: str | None = None
    conversation: Annotated[Raw, refused()] = ABSENT
    prompt: Annotated[Raw, refused()] = ABSENT
    stop: Annotated[Raw, refused([])] = ABSENT
    n: Annotated[Raw, refused(1)] = ABSENT
    messages: Annotated[Raw, misplaced(CHAT)] = ABSENT
    response_format: Annotated[Raw, misplaced(CHAT)] = ABSENT
    reasoning_effort: Annotated[Raw, misplaced(CHAT)] = ABSENT
    max_completion_tokens: Annotated[Raw, misplaced(CHAT)] = ABSENT
    max_tokens: Annotated[Raw, misplaced(CHAT)] = ABSENT
    system: Annotated[Raw, misplaced(MESSAGES)] = ABSENT
    stop_sequences: Annotated[Raw, misplaced(MESSAGES)] = ABSENT

    @property
    def is_kept(self) -> bool:
        """Whether the response is kept for later requests."""
        return self.store is not False

    @property
    def with_logprobs(self) -> bool:
        """Whether the text has the probabilities of its tokens."""
        return bool(self.top_logprobs) or LOGPROBS in (self.include or ())

    @property
    def with_summary(self) -> bool:
        """Whether reasoning is given as a summary too."""
        return self.summary not in (None, "none")

    @property
    def summary(self) -> str | None:
        """The kind of summary that is asked for."""
        given = self.reasoning
        return (given.summary or given.generate_summary) if given else None


# --- queries ---


@frozen(kw_only=True)
class ResponseQuery:
    """What ``GET /v1/responses/{id}`` takes.

    :ivar stream: whether to send its events, from the first on.
    :ivar starting_after: leave out those up to this ``sequence_number``.
    :ivar include: as when the response was made.
    """

    stream: bool = False
    starting_after: Annotated[int, Meta(ge=-1, le=INT32_MAX)] = -1
    include: list[str] | None = None


@frozen(kw_only=True)
class ItemsQuery:
    """What ``GET /v1/responses/{id}/input_items`` takes.

    :ivar after: the id of the item before the first one that is returned.
    :ivar order: ``desc`` begins with the last item.
    """

    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    order: Literal["asc", "desc"] = "desc"
    after: str | None = None
    include: list[str] | None = None


Given = dict[str, Any]
