"""What clients of ``/api/v0`` are answered."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from lmx_openai_api.objects import ChatChunk, ChatCompletion, Completion, CompletionChunk

from lmx_lmstudio_api.model_facts import Loaded
from lmx_lmstudio_api.speed import StopReason

# Clients refuse a whole list for one value that is not among these.
ModelType = Literal["llm", "vlm", "embeddings"]
Format = Literal["gguf", "mlx"]


class LMStudioModel(TypedDict):
    """A model on disk.

    :ivar loaded_context_length: in tokens; only of a model that is loaded.
    """

    id: str
    object: Literal["model"]
    type: ModelType
    publisher: str
    arch: str
    compatibility_type: Format
    quantization: str
    state: Loaded
    max_context_length: int
    loaded_context_length: NotRequired[int]
    capabilities: list[str]


class LMStudioModels(TypedDict):
    """All of them."""

    object: Literal["list"]
    data: list[LMStudioModel]


class Stats(TypedDict):
    """How fast an answer was, and why it ended.

    :ivar time_to_first_token: in seconds, as ``generation_time``, which begins there.
    :ivar draft_model: the model that guessed tokens; it and the counts are only there where tokens
        were to be guessed.
    """

    tokens_per_second: float
    time_to_first_token: float
    generation_time: float
    stop_reason: StopReason
    draft_model: NotRequired[str]
    total_draft_tokens_count: NotRequired[int]
    accepted_draft_tokens_count: NotRequired[int]
    rejected_draft_tokens_count: NotRequired[int]
    ignored_draft_tokens_count: NotRequired[int]


class ModelInfo(TypedDict):
    """The model that answered.

    :ivar context_length: in tokens, as it is loaded.
    """

    arch: str
    quant: str
    format: str
    context_length: int


class RuntimeInfo(TypedDict):
    """What ran the model."""

    name: str
    version: str
    supported_formats: list[str]


class Details(TypedDict):
    """What this API adds to the objects of the OpenAI dialect."""

    stats: Stats
    model_info: ModelInfo
    runtime: RuntimeInfo


class DetailedChat(ChatCompletion, Details):
    """A complete answer to a conversation."""


class DetailedCompletion(Completion, Details):
    """Complete continuations of prompts."""


class DetailedChatChunk(ChatChunk):
    """A piece of an answer to a conversation; the one that ends its last choice has the details."""

    stats: NotRequired[Stats]
    model_info: NotRequired[ModelInfo]
    runtime: NotRequired[RuntimeInfo]


class DetailedCompletionChunk(CompletionChunk):
    """A piece of a continuation; the one that ends the last choice has the details."""

    stats: NotRequired[Stats]
    model_info: NotRequired[ModelInfo]
    runtime: NotRequired[RuntimeInfo]
