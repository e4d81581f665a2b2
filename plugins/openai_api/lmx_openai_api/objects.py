"""What clients are answered: the objects of this dialect, as they are in JSON."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

Done = Literal["[DONE]"]


# --- usage ---


class PromptDetails(TypedDict):
    """``cached_tokens``: how many tokens of the prompt were known from earlier requests."""

    cached_tokens: int


class AnswerDetails(TypedDict):
    """What the tokens of an answer were.

    :ivar accepted_prediction_tokens: came sooner, since they were guessed right.
    :ivar rejected_prediction_tokens: were guessed wrong, and are not in the answer.
    """

    reasoning_tokens: int
    accepted_prediction_tokens: int
    rejected_prediction_tokens: int


class UsageObject(TypedDict):
    """The tokens of an answer. They are counted over all choices, the prompt once."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: AnswerDetails


class Head(TypedDict):
    """The fields that every object of one answer shares.

    :ivar created: in seconds since 1970.
    :ivar system_fingerprint: stands for everything that the answer depends on beside the request;
        null while the model is being loaded.
    """

    id: str
    created: int
    model: str
    system_fingerprint: str | None


# --- chat ---


class Token(TypedDict):
    """A token that was possible, and its log-probability; -9999 stands for none at all."""

    token: str
    logprob: float
    bytes: list[int]


class ChosenToken(Token):
    """A token of the answer, and those that were likely in its place."""

    top_logprobs: list[Token]


class ChatLogprobs(TypedDict):
    """The tokens of a piece of text."""

    content: list[ChosenToken]
    refusal: None


class FunctionObject(TypedDict):
    """What is called. ``arguments`` is JSON text, as the model wrote it."""

    name: str
    arguments: str


class CallObject(TypedDict):
    """A call of a tool."""

    id: str
    type: Literal["function"]
    function: FunctionObject


class AnswerMessage(TypedDict):
    """What the model says.

    :ivar content: null if it only calls.
    :ivar reasoning_content: what it thought before, if it did.
    :ivar tool_calls: what it calls, if it does.
    """

    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning_content: NotRequired[str]
    tool_calls: NotRequired[list[CallObject]]


class FunctionDelta(TypedDict):
    """More of a call's arguments; ``name`` is in its first delta only."""

    name: NotRequired[str]
    arguments: str


class CallDelta(TypedDict):
    """What a chunk adds to a call; ``id`` and ``type`` are in its first delta only.

    :ivar index: counts the calls of a message from 0.
    """

    index: int
    id: NotRequired[str]
    type: NotRequired[Literal["function"]]
    function: FunctionDelta


class Delta(TypedDict, total=False):
    """What a chunk adds to a message."""

    role: Literal["assistant"]
    content: str
    reasoning_content: str
    tool_calls: list[CallDelta]


class ChatChoice(TypedDict):
    """One of the answers.

    :ivar finish_reason: stop, length or tool_calls.
    """

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: str


class ChatChunkChoice(TypedDict):
    """A piece of one of the answers.

    :ivar finish_reason: stop, length or tool_calls; null before the end.
    """

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None
    finish_reason: str | None


class ChatCompletion(Head):
    """A complete answer to a conversation.

    :ivar service_tier: what the request got, if it asked for one.
    """

    object: Literal["chat.completion"]
    service_tier: NotRequired[str]
    choices: list[ChatChoice]
    usage: UsageObject


class ChatChunk(Head):
    """A piece of an answer to a conversation. The last one may have a usage and no choices."""

    object: Literal["chat.completion.chunk"]
    service_tier: NotRequired[str]
    choices: list[ChatChunkChoice]
    usage: NotRequired[UsageObject]


# --- completions ---


class CompletionLogprobs(TypedDict):
    """The tokens of a piece of text.

    :ivar text_offset: where each begins in the choice's text, in characters.
    """

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class CompletionChoice(TypedDict):
    """One of the continuations, or a piece of it.

    :ivar finish_reason: stop or length; null before the end.
    """

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: str | None


class Completion(Head):
    """Complete continuations of prompts."""

    object: Literal["text_completion"]
    choices: list[CompletionChoice]
    usage: UsageObject


class CompletionChunk(Head):
    """A piece of a continuation. The last one may have a usage and no choices."""

    object: Literal["text_completion"]
    choices: list[CompletionChoice]
    usage: NotRequired[UsageObject]


# --- embeddings and counts ---


class EmbeddingObject(TypedDict):
    """One text's vector.

    :ivar embedding: its numbers, or the base64 of them as float32, lowest byte first.
    """

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(TypedDict):
    """What the vectors cost, over all texts."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(TypedDict):
    """The vectors, in the order of the texts."""

    object: Literal["list"]
    data: list[EmbeddingObject]
    model: str
    usage: EmbeddingUsage


class TokenCount(TypedDict):
    """How many tokens a request's prompt has, or all its prompts together."""

    object: Literal["token_count"]
    prompt_tokens: int


# --- models and errors ---


class ModelObject(TypedDict):
    """A model that can be asked."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(TypedDict):
    """All of them."""

    object: Literal["list"]
    data: list[ModelObject]
