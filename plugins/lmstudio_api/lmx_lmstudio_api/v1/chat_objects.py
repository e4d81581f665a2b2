"""What clients of ``POST /api/v1/chat`` are answered."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from lmx_lmstudio_api.v1.errors import ErrorDetail

OutputKind = Literal["reasoning", "message"]


class OutputItem(TypedDict):
    """What the model thought, or said."""

    type: OutputKind
    content: str


class ChatStats(TypedDict):
    """What an answer cost.

    :ivar model_load_time_seconds: if the model was loaded for it.
    """

    input_tokens: int
    total_output_tokens: int
    reasoning_output_tokens: int
    tokens_per_second: float
    time_to_first_token_seconds: float
    model_load_time_seconds: NotRequired[float]


class ChatResult(TypedDict):
    """A whole answer.

    :ivar response_id: of an answer that is kept: the chat can go on after it.
    """

    model_instance_id: str
    output: list[OutputItem]
    stats: ChatStats
    response_id: NotRequired[str]


ChatEventType = Literal[
    "chat.start",
    "model_load.start",
    "model_load.progress",
    "model_load.end",
    "prompt_processing.start",
    "prompt_processing.progress",
    "prompt_processing.end",
    "reasoning.start",
    "reasoning.delta",
    "reasoning.end",
    "message.start",
    "message.delta",
    "message.end",
    "error",
    "chat.end",
]


class ChatEvent(TypedDict):
    """One event of a stream.

    :ivar model_instance_id: of ``chat.start`` and of those of a load.
    :ivar progress: what is done of a load, or of the prompt: 0 to 1.
    :ivar load_time_seconds: of ``model_load.end``.
    :ivar content: more of the text.
    :ivar result: of ``chat.end``, which is the last event in any case.
    """

    type: ChatEventType
    model_instance_id: NotRequired[str]
    progress: NotRequired[float]
    load_time_seconds: NotRequired[float]
    content: NotRequired[str]
    error: NotRequired[ErrorDetail]
    result: NotRequired[ChatResult]
