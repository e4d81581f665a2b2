"""What clients get."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict


class ErrorBody(TypedDict):
    """An error, also as the last line of a stream."""

    error: str


class CalledFunctionObject(TypedDict):
    """A function that the model calls; ``index`` counts the calls of one answer from 0."""

    index: int
    name: str
    arguments: dict[str, Any]


class CallObject(TypedDict):
    """A call."""

    id: str
    function: CalledFunctionObject


class AnswerMessage(TypedDict):
    """What the assistant says, or more of it. A call is always whole."""

    role: str
    content: str
    thinking: NotRequired[str]
    tool_calls: NotRequired[list[CallObject]]


class Token(TypedDict):
    """A token; ``bytes`` are its own, also where they are only part of a character."""

    token: str
    logprob: float
    bytes: list[int]


class TokenChoice(Token):
    """A sampled token and the likeliest ones at its place."""

    top_logprobs: NotRequired[list[Token]]


class Line(TypedDict):
    """What all lines of an answer have.

    The figures are in the last line, whose ``done`` is true. Durations are in nanoseconds:
    ``load_duration`` until the request started, waiting included; ``prompt_eval_duration`` from
    there to the first token; ``eval_duration`` from there to the end.
    """

    model: str
    created_at: str
    done: bool
    done_reason: NotRequired[str]
    total_duration: NotRequired[int]
    load_duration: NotRequired[int]
    prompt_eval_count: NotRequired[int]
    prompt_eval_duration: NotRequired[int]
    eval_count: NotRequired[int]
    eval_duration: NotRequired[int]
    logprobs: NotRequired[list[TokenChoice]]


class ChatLine(Line):
    """An answer to a conversation, or a line of one."""

    message: AnswerMessage


class GenerateLine(Line):
    """An answer to a prompt, or a line of one."""

    response: str
    thinking: NotRequired[str]


class EmbedAnswer(TypedDict):
    """Vectors of length 1, in the order of the texts."""

    model: str
    embeddings: list[list[float]]
    total_duration: int
    prompt_eval_count: int


class EmbeddingsAnswer(TypedDict):
    """One vector."""

    embedding: list[float]


class Details(TypedDict):
    """``parameter_size`` is what the model's name says of it; "" for nothing."""

    parent_model: str
    format: str
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class ModelObject(TypedDict):
    """A model on disk. ``digest`` is a hash of its name and size, not of its files."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: Details


class ModelList(TypedDict):
    """The models on disk."""

    models: list[ModelObject]


class RunningModel(TypedDict):
    """A loaded model. ``size`` is the memory that is reserved for it; how much of that is a GPU's
    is not known, so ``size_vram`` is 0. One that stays loaded expires in a hundred years.
    """

    name: str
    model: str
    size: int
    size_vram: int
    digest: str
    details: Details
    expires_at: str
    context_length: int


class RunningList(TypedDict):
    """The models that are loaded."""

    models: list[RunningModel]


class ShownModel(TypedDict):
    """One model. ``parameters`` has the tokens that a request may use now, ``model_info`` those
    that the model was trained for. ``template`` and ``modelfile`` are empty.
    """

    modelfile: str
    parameters: str
    template: str
    details: Details
    model_info: dict[str, str | int]
    capabilities: list[str]
    modified_at: str


class VersionObject(TypedDict):
    """The version of Ollama whose API this is."""

    version: str


class Progress(TypedDict):
    """A line of a download; ``total`` and ``completed`` are bytes."""

    status: str
    digest: NotRequired[str]
    total: NotRequired[int]
    completed: NotRequired[int]


class Status(TypedDict):
    """How it went."""

    status: str
