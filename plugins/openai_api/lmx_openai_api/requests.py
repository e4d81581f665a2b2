"""Bodies of this dialect to the kernel's own requests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lmx_kernel.dialect.json_values import check_json
from lmx_kernel.dialect.refused import check_supported
from lmx_kernel.dialect.sampling import make_sampling
from lmx_kernel.dialect.service_tier import priority_of
from lmx_kernel.errors import InvalidRequestError, UnsupportedFieldError
from lmx_kernel.types import (
    ChatPrompt,
    EmbeddingPrompt,
    GenerationRequest,
    SamplingRequest,
    TextPrompt,
    TokenPrompt,
)
from lmx_openai_api.messages import message, parts
from lmx_openai_api.response_format import constraint
from lmx_openai_api.schema import (
    ChatBody,
    CompletionBody,
    EmbeddingBody,
    GenerationBody,
    Prediction,
    Stop,
)
from lmx_openai_api.tools import tool, tool_choice

MAX_PROMPTS = 32
MAX_EMBEDDED = 2048
_FIXED_OPTIONS = {"add_generation_prompt": True, "continue_final_message": False}


def chat_request(body: ChatBody) -> GenerationRequest:
    """Return what ``body`` asks for.

    :raises InvalidRequestError: naming the field that contradicts another.
    :raises UnsupportedFieldError: naming the field that LMX does not do.
    """
    check_supported(body)
    if body.top_logprobs and not body.logprobs:
        raise InvalidRequestError("top_logprobs: needs logprobs to be true", param="top_logprobs")
    tools = tuple(tool(*item) for item in enumerate(body.tools or ()))
    limit = "max_tokens" if body.max_completion_tokens is None else "max_completion_tokens"
    return GenerationRequest(
        model=body.model,
        prompt=ChatPrompt(
            tuple(message(*item) for item in enumerate(body.messages)), tools, _options(body)
        ),
        sampling=_sampling(body),
        max_tokens=_max_tokens(limit, getattr(body, limit)),
        stop=_stop(body.stop),
        candidates=body.n or 1,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        tool_choice=tool_choice(body.tool_choice, tools),
        # A tool that is asked for by name is called once, as clients expect.
        parallel_tool_calls=body.parallel_tool_calls is not False
        and isinstance(body.tool_choice, str | None),
        constraint=constraint(body),
        reasoning_tokens=_reasoning_tokens(body),
        priority=priority_of(body.service_tier),
        logits_processors=_processors(body),
        reproducible=bool(body.lmx_reproducible),
        prediction=_prediction(body.prediction),
        draft_model=body.draft_model or "",
    )


def _prediction(given: Prediction | None) -> str:
    if given is None:
        return ""
    return "".join(part.text for part in parts("prediction.content", given.content))


def completion_requests(body: CompletionBody) -> list[GenerationRequest]:
    """Return what ``body`` asks for, one request for each prompt; raises as above."""
    check_supported(body)
    if body.best_of is not None and body.best_of > (body.n or 1):
        raise UnsupportedFieldError("best_of: may not be greater than n", param="best_of")
    prompts = list(inputs("prompt", body.prompt, MAX_PROMPTS))
    _check_echo(body, prompts)
    return [
        GenerationRequest(
            model=body.model,
            prompt=prompt,
            sampling=_sampling(body),
            max_tokens=_max_tokens("max_tokens", body.max_tokens),
            stop=_stop(body.stop),
            candidates=body.n or 1,
            logprobs=body.logprobs,
            constraint=constraint(body),
            logits_processors=_processors(body),
            draft_model=body.draft_model or "",
            reproducible=bool(body.lmx_reproducible),
        )
        for prompt in prompts
    ]


def embedding_request(body: EmbeddingBody) -> GenerationRequest:
    """Return what ``body`` asks for.

    :raises InvalidRequestError: as :func:`inputs`, or the body belongs to another path.
    """
    check_supported(body)
    prompt = EmbeddingPrompt(tuple(inputs("input", body.input, MAX_EMBEDDED)))
    return GenerationRequest(model=body.model, prompt=prompt)


# --- prompts ---


def inputs(name: str, given: str | list[Any], most: int) -> Iterator[TextPrompt | TokenPrompt]:
    """Yield each text or list of tokens in the field ``name``: one, or at ``most`` so many.

    :raises InvalidRequestError: there are more, or of several kinds.
    """
    if isinstance(given, str):
        yield TextPrompt(given)
        return
    kind = type(given[0])
    for index, item in enumerate(given):
        if type(item) is not kind:
            where = f"{name}[{index}]"
            raise InvalidRequestError(
                f"{where}: texts, tokens and lists of tokens do not mix", param=where
            )
    if kind is int:
        yield TokenPrompt(tuple(given))
    elif len(given) > most:
        raise InvalidRequestError(f"{name}: more than {most} of them", param=name)
    else:
        yield from (TextPrompt(i) if kind is str else TokenPrompt(tuple(i)) for i in given)


def _check_echo(body: CompletionBody, prompts: list[TextPrompt | TokenPrompt]) -> None:
    if not body.echo:
        return
    if body.logprobs is not None:
        raise UnsupportedFieldError("echo: not supported together with logprobs", param="echo")
    if not all(isinstance(prompt, TextPrompt) for prompt in prompts):
        raise UnsupportedFieldError("echo: only supported for prompts of text", param="echo")


# --- the rest ---


def _options(body: ChatBody) -> dict[str, Any]:
    """Return the names that the chat template gets beside the messages."""
    effort, given = _effort(body), body.chat_template_kwargs or {}
    check_json("chat_template_kwargs", given)
    for name, harmless in _FIXED_OPTIONS.items():
        if given.get(name) not in (None, harmless):
            where = f"chat_template_kwargs.{name}"
            raise UnsupportedFieldError(f"{where}: not supported yet", param=where)
    options: dict[str, Any] = {}
    if effort is not None:
        options["enable_thinking"] = effort != "none"
    if effort not in (None, "none"):
        options["reasoning_effort"] = effort
    return options | given


def _effort(body: ChatBody) -> str | None:
    if body.reasoning is None:
        return body.reasoning_effort
    check_supported(body.reasoning, "reasoning.")
    if body.reasoning.effort is None:
        return body.reasoning_effort
    if body.reasoning_effort not in (None, body.reasoning.effort):
        raise InvalidRequestError(
            "reasoning.effort: contradicts reasoning_effort", param="reasoning.effort"
        )
    return body.reasoning.effort


def _reasoning_tokens(body: ChatBody) -> int | None:
    nested = body.reasoning.max_tokens if body.reasoning else None
    for budget in (body.reasoning_budget, body.thinking_budget, nested):
        if budget is not None:
            return None if budget == -1 else budget
    return 0 if _effort(body) == "none" else None


def _processors(body: GenerationBody) -> dict[str, dict[str, Any]]:
    given = body.logits_processors or {}
    check_json("logits_processors", given)
    return given


def _sampling(body: GenerationBody) -> SamplingRequest:
    return make_sampling(
        {
            "temperature": body.temperature,
            "top_k": body.top_k,
            "top_p": body.top_p,
            "min_p": body.min_p,
            "repetition_penalty": body.repetition_penalty or body.repeat_penalty,
            "presence_penalty": body.presence_penalty,
            "frequency_penalty": body.frequency_penalty,
            "seed": None if body.seed == -1 else body.seed,
            "logit_bias": body.logit_bias,
        }
    )


def _max_tokens(name: str, value: int | None) -> int | None:
    if value == 0:
        raise InvalidRequestError(f"{name}: must be at least 1, or -1 for no limit", param=name)
    return None if value == -1 else value


def _stop(stop: Stop | None) -> tuple[str, ...]:
    texts = [stop] if isinstance(stop, str) else stop or ()
    return tuple(text for text in texts if text)
