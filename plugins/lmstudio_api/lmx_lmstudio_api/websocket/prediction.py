"""What clients ask of a model to the kernel's own requests."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from lmx_kernel.dialect.json_values import schema_constraint
from lmx_kernel.dialect.sampling import make_sampling
from lmx_kernel.errors import InvalidRequestError, UnsupportedFieldError
from lmx_kernel.types import (
    ChatPrompt,
    Constraint,
    GenerationRequest,
    Message,
    Prompt,
    SamplingRequest,
    TextPart,
    TextPrompt,
    ToolChoice,
)
from lmx_lmstudio_api.websocket.config import (
    PREDICTION,
    ConfigStack,
    PredictionConfig,
    Structured,
    ToolsValue,
    on,
    prediction_config,
)
from lmx_lmstudio_api.websocket.history import History, messages_of, text_of
from lmx_lmstudio_api.websocket.models import Specifier
from lmx_lmstudio_api.websocket.tools import choice_of, make_tools

_TOOLS, _STRUCTURED = f"{PREDICTION}tools", f"{PREDICTION}structured"


class PredictBody(Struct, rename="camel", frozen=True):
    """What a channel ``predict`` is created with."""

    model_specifier: Specifier
    history: History
    prediction_config_stack: ConfigStack


class CompleteBody(Struct, rename="camel", frozen=True):
    """What a channel ``completeRawText`` is created with."""

    model_specifier: Specifier
    raw_prompt: str
    prediction_config_stack: ConfigStack


def predict_request(body: PredictBody, model: str) -> GenerationRequest:
    """Return what ``body`` asks of a model.

    :param model: its name as the kernel knows it.
    :raises InvalidRequestError: naming the field that is wrong.
    :raises UnsupportedFieldError: naming the field that LMX does not do.
    """
    stack = body.prediction_config_stack
    config = prediction_config(stack)
    if stack.is_complete_mode:
        return _request(model, TextPrompt(text_of(body.history), is_rendered=True), config)
    given = config.tools or ToolsValue()
    prompt = chat_prompt(body.history, config)
    choice = choice_of(_TOOLS, prompt.tools, given, config.tool_choice)
    return _request(model, prompt, config, choice)


def complete_request(body: CompleteBody, model: str) -> GenerationRequest:
    """Return what ``body`` asks of a model; parameters and errors as of :func:`predict_request`."""
    prompt = TextPrompt(body.raw_prompt, is_rendered=True)
    return _request(model, prompt, prediction_config(body.prediction_config_stack))


def chat_prompt(history: History, config: PredictionConfig) -> ChatPrompt:
    """Return a conversation with its tools.

    :raises InvalidRequestError: as :func:`predict_request`.
    """
    messages = messages_of(history)
    if not messages:
        raise InvalidRequestError("history.messages: there are none", param="history.messages")
    if config.system_prompt and messages[0].role != "system":
        messages = (Message("system", (TextPart(config.system_prompt),)), *messages)
    given = config.tools or ToolsValue()
    tools = make_tools(f"{_TOOLS}.tools", given.tools or ()) if given.type == "toolArray" else ()
    options: dict[str, Any] = {}
    if config.enable_thinking is not None:
        options["enable_thinking"] = config.enable_thinking
    return ChatPrompt(messages, tools, options)


def _request(
    model: str, prompt: Prompt, config: PredictionConfig, choice: ToolChoice | None = None
) -> GenerationRequest:
    most = on(config.max_predicted_tokens)
    thinks = config.enable_thinking is not False
    return GenerationRequest(
        model=model,
        prompt=prompt,
        sampling=_sampling(config),
        max_tokens=most if most is not None and most > 0 else None,
        stop=tuple(text for text in config.stop_strings or () if text),
        tool_choice=choice or ToolChoice(),
        constraint=_constraint(config.structured or Structured()),
        reasoning_tokens=on(config.reasoning_tokens) if thinks else 0,
        draft_model=config.draft_model or "",
    )


def _sampling(config: PredictionConfig) -> SamplingRequest:
    seed, top_k = on(config.seed), config.top_k_sampling
    return make_sampling(
        {
            "temperature": config.temperature,
            "top_k": None if top_k is None else int(top_k),
            "top_p": on(config.top_p_sampling),
            "min_p": on(config.min_p_sampling),
            "repetition_penalty": on(config.repeat_penalty),
            "presence_penalty": on(config.presence_penalty),
            "frequency_penalty": on(config.frequency_penalty),
            "seed": None if seed == -1 else seed,
        }
    )


def _constraint(structured: Structured) -> Constraint | None:
    if structured.type == "none":
        return None
    if structured.type != "json":
        raise UnsupportedFieldError(
            f"{_STRUCTURED}.type: only json is supported", param=f"{_STRUCTURED}.type"
        )
    if structured.json_schema is None:
        return Constraint("json_object", param=_STRUCTURED)
    return schema_constraint(f"{_STRUCTURED}.jsonSchema", structured.json_schema)
