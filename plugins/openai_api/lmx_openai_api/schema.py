"""What clients may send: one definition that parses, validates and documents a request.

A field that is not listed is ignored. A field marked :func:`~lmx_kernel.dialect.refused.refused`
is known to mean something LMX does not do: it may only carry a value that asks for nothing.
"""

from __future__ import annotations

from typing import Annotated, Literal

from attrs import frozen
from msgspec import Meta, Raw

from lmx_kernel.dialect.fields import (
    INT32_MAX,
    Bias,
    DraftModelName,
    Effort,
    FunctionName,
    JsonObject,
    MinP,
    ModelName,
    Penalty,
    RepetitionPenalty,
    Seed,
    StopText,
    StopTexts,
    Temperature,
    TokenId,
    TopK,
    TopLogprobs,
    TopP,
)
from lmx_kernel.dialect.refused import ABSENT, misplaced, refused

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"
Role = Literal["system", "developer", "user", "assistant", "tool", "function"]
# These are checked later, to say which one it is.
PartType = Annotated[str, Meta(extra_json_schema={"enum": ["text", "refusal"]})]
FunctionType = Annotated[str, Meta(extra_json_schema={"enum": ["function"]})]
Strictness = bool | Literal["true", "false"]
Seconds = Annotated[float, Meta(gt=0, le=10**9)]
TokenBudget = Annotated[int, Meta(ge=-1, le=INT32_MAX)]
Stop = StopText | StopTexts
MaxTokens = Annotated[int, Meta(ge=-1, le=INT32_MAX)]
PromptItem = str | TokenId | Annotated[list[TokenId], Meta(min_length=1)]


@frozen
class ContentPart:
    """A part of a message; only parts of type ``text`` are served, and what an assistant refused,
    which is text as well.
    """

    type: PartType
    text: str | None = None
    refusal: str | None = None


@frozen(kw_only=True)
class CalledFunction:
    """``arguments`` is JSON text. Both are as the model wrote them, which may be nonsense."""

    name: str
    arguments: str | None = None


@frozen(kw_only=True)
class CallItem:
    """A call that the assistant made."""

    id: str
    type: FunctionType = "function"
    function: CalledFunction


@frozen(kw_only=True)
class ChatMessage:
    """One turn of a conversation.

    :ivar role: ``function`` is refused.
    :ivar name: the speaker's, or the name of the tool that returned the content.
    :ivar tool_calls: what an assistant called.
    :ivar tool_call_id: the call that a tool's message answers.
    :ivar reasoning_content: what an assistant thought before it spoke.
    """

    role: Role
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[CallItem] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    function_call: Annotated[Raw, refused()] = ABSENT
    audio: Annotated[Raw, refused()] = ABSENT


@frozen(kw_only=True)
class FunctionItem:
    """A function that the model may call.

    :ivar parameters: JSON schema of its arguments; without one it has none.
    :ivar strict: whether a schema that cannot be followed exactly is an error.
    """

    name: FunctionName
    description: str | None = None
    parameters: JsonObject | None = None
    strict: Strictness | None = None


@frozen(kw_only=True)
class ToolItem:
    """A tool; only those of type ``function`` are served."""

    type: FunctionType
    function: FunctionItem | None = None


@frozen
class NamedFunction:
    """Names one of the functions in ``tools``."""

    name: str


@frozen(kw_only=True)
class NamedTool:
    """A tool that must be called."""

    type: FunctionType = "function"
    function: NamedFunction | None = None


@frozen(kw_only=True)
class NamedSchema:
    """A JSON schema; ``name``, ``description`` and ``strict`` change nothing: it is followed."""

    name: str | None = None
    description: str | None = None
    schema: JsonObject
    strict: Strictness | None = None


@frozen(kw_only=True)
class ResponseFormat:
    """What the answer must look like.

    :ivar json_schema: needed if the type is ``json_schema``.
    :ivar schema: with the type ``json_object``, a schema all the same.
    """

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None
    schema: JsonObject | None = None


@frozen
class StreamOptions:
    """``include_usage``: whether a stream ends with a chunk that has the usage."""

    include_usage: bool | None = None


@frozen(kw_only=True)
class GenerationBody:
    """What both kinds of completion take. Null means the same as absent.

    :ivar max_tokens: -1 or absent for as many as the context holds.
    :ivar seed: -1 for a random one.
    :ivar top_k: 0 or -1 to keep all tokens.
    :ivar repeat_penalty: another name of ``repetition_penalty``.
    :ivar guided_regex: a regular expression that the whole answer matches.
    :ivar guided_grammar: a grammar that the answer follows: Lark, as llguidance reads it.
    :ivar ttl: if this request loads the model, it is unloaded after so many seconds without one.
    :ivar draft_model: a model that drafts for this one: it changes nothing, but may come faster.
    :ivar logits_processors: plugins of LMX that change the logits, by name, with their options.
    :ivar lmx_reproducible: refuse the request where the same seed is not sure to give the same
        answer, bit for bit; see ``reproducible`` of ``[[model]]``.
    """

    model: ModelName
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=16)] | None = None
    max_tokens: MaxTokens | None = None
    stop: Stop | None = None
    seed: Seed | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    min_p: MinP | None = None
    repeat_penalty: RepetitionPenalty | None = None
    repetition_penalty: RepetitionPenalty | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: Annotated[dict[TokenId, Bias], Meta(max_length=1024)] | None = None
    response_format: ResponseFormat | None = None
    guided_regex: str | None = None
    guided_grammar: str | None = None
    ttl: Seconds | None = None
    draft_model: DraftModelName | None = None
    logits_processors: Annotated[dict[str, JsonObject], Meta(max_length=16)] | None = None
    lmx_reproducible: bool | None = None
    guided_json: Annotated[Raw, refused()] = ABSENT
    guided_choice: Annotated[Raw, refused()] = ABSENT
    structured_outputs: Annotated[Raw, refused()] = ABSENT
    json_schema: Annotated[Raw, refused()] = ABSENT
    grammar: Annotated[Raw, refused("")] = ABSENT
    min_tokens: Annotated[Raw, refused(0)] = ABSENT
    ignore_eos: Annotated[Raw, refused(False)] = ABSENT
    stop_token_ids: Annotated[Raw, refused([])] = ABSENT
    allowed_token_ids: Annotated[Raw, refused([])] = ABSENT
    bad_words: Annotated[Raw, refused([])] = ABSENT
    use_beam_search: Annotated[Raw, refused(False)] = ABSENT
    prompt_logprobs: Annotated[Raw, refused()] = ABSENT
    truncate_prompt_tokens: Annotated[Raw, refused()] = ABSENT
    include_stop_str_in_output: Annotated[Raw, refused(False)] = ABSENT


@frozen(kw_only=True)
class ReasoningOptions:
    """How an answer is reasoned about.

    :ivar effort: as ``reasoning_effort``.
    :ivar max_tokens: as ``reasoning_budget``.
    """

    effort: Effort | None = None
    max_tokens: TokenBudget | None = None
    enabled: Annotated[Raw, refused(True)] = ABSENT
    exclude: Annotated[Raw, refused(False)] = ABSENT
    summary: Annotated[Raw, refused()] = ABSENT


@frozen(kw_only=True)
class Prediction:
    """What an answer will probably be, such as a file before it is edited."""

    type: Literal["content"]
    content: str | list[ContentPart]


@frozen(kw_only=True)
class ChatBody(GenerationBody):
    """The body of ``POST /v1/chat/completions``.

    :ivar tool_choice: as the model likes (``auto``), not at all, at least one call, or one tool.
    :ivar reasoning_effort: what the chat template makes of it; ``none`` for no reasoning at all.
    :ivar reasoning_budget: so many tokens of reasoning at most; -1 for no limit.
    :ivar thinking_budget: another name of ``reasoning_budget``.
    :ivar reasoning: the same in one object, which may not contradict them.
    :ivar service_tier: ``flex`` for low priority, ``auto`` and ``default`` for a normal one,
        ``priority`` for a high one; at most that of the key, which is also what is asked for
        without it.
    :ivar chat_template_kwargs: more names for the chat template, such as ``enable_thinking``.
    :ivar prediction: what the answer will mostly be: it changes nothing, but comes faster.
    """

    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=4096)]
    max_completion_tokens: MaxTokens | None = None
    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None
    tools: Annotated[list[ToolItem], Meta(max_length=1024)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Effort | None = None
    reasoning_budget: TokenBudget | None = None
    thinking_budget: TokenBudget | None = None
    reasoning: ReasoningOptions | None = None
    service_tier: str | None = None
    chat_template_kwargs: JsonObject | None = None
    prediction: Prediction | None = None
    continue_final_message: Annotated[Raw, refused(False)] = ABSENT
    add_generation_prompt: Annotated[Raw, refused(True)] = ABSENT
    chat_template: Annotated[Raw, refused("")] = ABSENT
    documents: Annotated[Raw, refused([])] = ABSENT
    echo: Annotated[Raw, refused(False)] = ABSENT
    functions: Annotated[Raw, refused([])] = ABSENT
    function_call: Annotated[Raw, refused("none", "auto")] = ABSENT
    modalities: Annotated[Raw, refused([], ["text"])] = ABSENT
    audio: Annotated[Raw, refused()] = ABSENT
    web_search_options: Annotated[Raw, refused()] = ABSENT
    prompt: Annotated[Raw, misplaced(COMPLETIONS)] = ABSENT
    input: Annotated[Raw, misplaced(RESPONSES)] = ABSENT
    max_output_tokens: Annotated[Raw, misplaced(RESPONSES)] = ABSENT
    previous_response_id: Annotated[Raw, misplaced(RESPONSES)] = ABSENT
    system: Annotated[Raw, misplaced(MESSAGES)] = ABSENT
    stop_sequences: Annotated[Raw, misplaced(MESSAGES)] = ABSENT


@frozen(kw_only=True)
class CompletionBody(GenerationBody):
    """The body of ``POST /v1/completions``.

    :ivar prompt: a text, its tokens, or a list of either.
    """

    prompt: str | Annotated[list[PromptItem], Meta(min_length=1)]
    echo: bool | None = None
    logprobs: TopLogprobs | None = None
    best_of: Annotated[int, Meta(ge=1, le=16)] | None = None
    suffix: Annotated[Raw, refused("")] = ABSENT
    messages: Annotated[Raw, misplaced(CHAT)] = ABSENT
    input: Annotated[Raw, misplaced(RESPONSES)] = ABSENT


@frozen(kw_only=True)
class EmbeddingBody:
    """The body of ``POST /v1/embeddings``. Null means the same as absent.

    :ivar input: a text, its tokens, or a list of up to 2048 of either.
    :ivar dimensions: numbers in each vector: so many of the first ones, brought to length 1 again.
    :ivar ttl: as for an answer.
    """

    model: ModelName
    input: str | Annotated[list[PromptItem], Meta(min_length=1)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1, le=INT32_MAX)] | None = None
    ttl: Seconds | None = None
    messages: Annotated[Raw, misplaced(CHAT)] = ABSENT
    prompt: Annotated[Raw, misplaced(COMPLETIONS)] = ABSENT
