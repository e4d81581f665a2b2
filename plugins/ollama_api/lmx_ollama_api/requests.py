"""Bodies of this dialect to the kernel's own requests."""

from __future__ import annotations

from typing import Any

from lmx_kernel.dialect.json_values import check_json, schema_constraint
from lmx_kernel.dialect.sampling import make_sampling
from lmx_kernel.errors import InvalidRequestError, UnsupportedFieldError
from lmx_kernel.types import (
    ChatPrompt,
    Constraint,
    GenerationRequest,
    Message,
    ModelCard,
    Prompt,
    Sampling,
    TextPart,
    TextPrompt,
    Tool,
)
from lmx_ollama_api.messages import turns
from lmx_ollama_api.schema import ChatBody, GenerateBody, GenerationBody, Options, ToolItem


def chat_request(body: ChatBody, model: str) -> GenerationRequest:
    """Return what ``body`` asks for.

    :param model: the name of the model as the kernel knows it.
    :raises InvalidRequestError: naming the field that is wrong.
    :raises UnsupportedFieldError: naming the field that LMX does not do.
    """
    tools = tuple(_tool(f"tools[{index}]", item) for index, item in enumerate(body.tools or ()))
    return _request(body, model, ChatPrompt(turns(body.messages or ()), tools, _thinking(body)))


def generate_request(body: GenerateBody, model: str, card: ModelCard | None) -> GenerationRequest:
    """Return what ``body`` asks for; raises as :func:`chat_request`.

    :param card: of the model, where it is known.
    """
    return _request(body, model, _prompt(body, card))


def _request(body: GenerationBody, model: str, prompt: Prompt) -> GenerationRequest:
    options = body.options or Options()
    return GenerationRequest(
        model=model,
        prompt=prompt,
        sampling=_sampling(options),
        max_tokens=_limit(options.num_predict),
        context_tokens=_limit(options.num_ctx),
        stop=_stop(options),
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        constraint=_constraint(body.format),
        reasoning_tokens=0 if body.think is False else None,
        reproducible=bool(options.lmx_reproducible),
    )


def _prompt(body: GenerateBody, card: ModelCard | None) -> Prompt:
    """Return the prompt in the model's chat template, if it has one and it is wanted."""
    prompt, system = body.prompt or "", body.system or ""
    if body.raw:
        return TextPrompt(prompt)
    if card is not None and card.capabilities == {"completion"}:
        return TextPrompt(f"{system}\n\n{prompt}" if system else prompt)
    messages = [Message("system", (TextPart(system),))] if system else []
    messages.append(Message("user", (TextPart(prompt),)))
    return ChatPrompt(tuple(messages), (), _thinking(body))


def _thinking(body: GenerationBody) -> dict[str, Any]:
    """Return the names that the chat template gets beside the messages."""
    if body.think is None:
        return {}
    if isinstance(body.think, bool):
        return {"enable_thinking": body.think}
    return {"enable_thinking": True, "reasoning_effort": body.think}


def _tool(path: str, item: ToolItem) -> Tool:
    if item.type != "function":
        where = f"{path}.type"
        raise UnsupportedFieldError(f"{where}: only functions are supported", param=where)
    function = item.function
    check_json(f"{path}.function.parameters", function.parameters)
    return Tool(
        name=function.name,
        description=function.description or "",
        parameters=function.parameters or {},
    )


def _constraint(given: str | dict[str, Any] | None) -> Constraint | None:
    if given is None or given == "":
        return None
    if given == "json":
        return Constraint("json_object", param="format")
    if isinstance(given, dict):
        return schema_constraint("format", given)
    raise InvalidRequestError('format: takes "json" or a JSON schema', param="format")


def _sampling(options: Options) -> Sampling:
    seed = None if options.seed is None else int(options.seed)
    return make_sampling(
        {
            "temperature": options.temperature,
            "top_k": None if options.top_k is None else int(options.top_k),
            "top_p": options.top_p,
            "min_p": options.min_p,
            "repetition_penalty": options.repeat_penalty,
            "presence_penalty": options.presence_penalty,
            "frequency_penalty": options.frequency_penalty,
            "seed": None if seed == -1 else seed,
        }
    )


def _limit(given: float | None) -> int | None:
    """Return a number of tokens; None for none, which is what 0 and less stand for."""
    return int(given) if given is not None and given >= 1 else None


def _stop(options: Options) -> tuple[str, ...]:
    texts = [options.stop] if isinstance(options.stop, str) else options.stop or ()
    return tuple(text for text in texts if text)
