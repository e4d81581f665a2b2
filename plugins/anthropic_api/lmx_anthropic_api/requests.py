"""Bodies of this dialect to the kernel's own requests."""

from __future__ import annotations

from typing import TypeVar

from falcon.asgi import Request

from lmx_anthropic_api.errors import check_no_thread
from lmx_anthropic_api.schema import CountBody, ForeignFields, MessagesBody, OutputFormat
from lmx_anthropic_api.service_tier import priority_of
from lmx_anthropic_api.system import system_message
from lmx_anthropic_api.thinking import reasoning_tokens, template_options
from lmx_anthropic_api.tools import is_parallel, read_choice, read_tools
from lmx_anthropic_api.turns import read_turn
from lmx_kernel.dialect.fields import INT32_MAX
from lmx_kernel.dialect.json_values import schema_constraint
from lmx_kernel.dialect.refused import check_supported
from lmx_kernel.dialect.sampling import make_sampling
from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.http.json_body import parse
from lmx_kernel.types import ChatPrompt, Constraint, GenerationRequest, Tool

B = TypeVar("B", bound=CountBody)


async def read(req: Request, cls: type[B]) -> B:
    """Return the body of a request.

    :raises InvalidRequestError: it is no ``cls``; if it is one of another path, that is named.
    :raises UnsupportedFieldError: naming the field that LMX does not do.
    """
    data = await req.stream.read()
    try:
        body = parse(data, cls)
    except InvalidRequestError:
        _check_dialect(parse(data, ForeignFields))
        raise
    _check_dialect(body)
    return body


def message_request(body: MessagesBody) -> GenerationRequest:
    """Return what ``body`` asks for.

    :raises InvalidRequestError: naming the field that is wrong, or contradicts another.
    :raises UnsupportedFieldError: naming the field that LMX does not do.
    """
    tools = tuple(read_tools(body.tools or ()))
    sampling = {name: getattr(body, name) for name in ("temperature", "top_p", "top_k")}
    return GenerationRequest(
        model=body.model,
        prompt=_prompt(body, tools),
        sampling=make_sampling(sampling),
        max_tokens=min(body.max_tokens, INT32_MAX),
        stop=tuple(filter(None, body.stop_sequences or ())),
        tool_choice=read_choice(body.tool_choice, tools),
        parallel_tool_calls=is_parallel(body.tool_choice),
        constraint=_constraint(body),
        reasoning_tokens=reasoning_tokens(body),
        priority=priority_of(body.service_tier),
    )


def count_request(body: CountBody) -> GenerationRequest:
    """Return a request whose prompt is that of ``body``; raises as :func:`message_request`."""
    tools = tuple(read_tools(body.tools or ()))
    choice = read_choice(body.tool_choice, tools)
    return GenerationRequest(model=body.model, prompt=_prompt(body, tools), tool_choice=choice)


def _check_dialect(body: ForeignFields) -> None:
    check_no_thread(body.thread)
    check_supported(body)


def _prompt(body: CountBody, tools: tuple[Tool, ...]) -> ChatPrompt:
    system = system_message(body.system)
    turns = [turn for item in enumerate(body.messages) for turn in read_turn(*item, tools)]
    messages = (system, *turns) if system else tuple(turns)
    return ChatPrompt(messages, tools, template_options(body))


def _constraint(body: CountBody) -> Constraint | None:
    """Return what the text of an answer must look like; None for anything."""
    nested = body.output_config.format if body.output_config else None
    given: dict[str, OutputFormat | None] = {
        "output_config.format": nested,
        "output_format": body.output_format,
    }
    if nested and body.output_format and nested != body.output_format:
        where = "output_format"
        raise InvalidRequestError(f"{where}: contradicts output_config.format", param=where)
    for name, wanted in given.items():
        if wanted is not None:
            return schema_constraint(f"{name}.schema", wanted.schema)
    return None
