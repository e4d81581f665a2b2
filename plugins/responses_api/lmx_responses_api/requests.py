"""Bodies of this dialect to the kernel's own requests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import structlog
from attrs import frozen

from lmx_kernel.dialect.refused import check_supported
from lmx_kernel.dialect.service_tier import priority_of
from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.interfaces import Kernel
from lmx_kernel.types import ChatPrompt, GenerationRequest
from lmx_responses_api.history import History
from lmx_responses_api.sampling import sampling
from lmx_responses_api.schema import ResponseBody
from lmx_responses_api.text_format import constraint
from lmx_responses_api.tool_choice import choice
from lmx_responses_api.toolbox import Toolbox
from lmx_responses_api.truncation import shortened
from lmx_responses_api.turns import PlacedItem, conversation

_log = structlog.get_logger("lmx.responses")


@frozen
class Requests:
    """Makes requests of bodies, with what the server keeps of the conversation."""

    kernel: Kernel

    async def of(self, body: ResponseBody, owner: str) -> GenerationRequest:
        """Return what ``body`` asks for, shortened if it says so.

        :param owner: the name of the client's key.
        :raises LmxError: as :meth:`whole`, and as :meth:`Kernel.count_tokens`.
        """
        request = await self.whole(body, owner)
        if body.truncation == "auto":
            return await shortened(self.kernel, request)
        return request

    async def whole(self, body: ResponseBody, owner: str) -> GenerationRequest:
        """Return what ``body`` asks for, however long it is.

        :raises InvalidRequestError: naming the field that is wrong.
        :raises UnsupportedFieldError: naming the field that LMX does not do.
        :raises PreviousResponseNotFoundError: the response to go on from is not kept.
        """
        check_supported(body)
        if body.input is None and not body.previous_response_id:
            raise InvalidRequestError("input: this field is required", param="input")
        if body.background and not body.is_kept:
            raise InvalidRequestError("background: needs store to be true", param="background")
        items = await History(self.kernel, owner).items(body)
        return generation_request(body, items)


def generation_request(body: ResponseBody, items: Iterable[PlacedItem]) -> GenerationRequest:
    """Return the request of ``body`` with a conversation of ``items``.

    :raises InvalidRequestError: naming the field that is wrong.
    :raises UnsupportedFieldError: naming the field that LMX does not do.
    """
    toolbox = Toolbox.of(body.tools)
    if toolbox.left_out:
        _log.info("tools_left_out", types=sorted(toolbox.left_out))
    chosen = choice(body, toolbox)
    effort = body.reasoning.effort if body.reasoning else None
    return GenerationRequest(
        model=body.model,
        prompt=ChatPrompt(
            conversation(items, toolbox, body.instructions), toolbox.tools, _options(effort)
        ),
        sampling=sampling(body),
        max_tokens=body.max_output_tokens,
        logprobs=(body.top_logprobs or 0) if body.with_logprobs else None,
        tool_choice=chosen.tool_choice,
        parallel_tool_calls=body.parallel_tool_calls is not False and not chosen.is_named,
        constraint=constraint(body, chosen.written),
        reasoning_tokens=0 if effort == "none" else None,
        priority=priority_of(body.service_tier),
        reproducible=bool(body.lmx_reproducible),
    )


def _options(effort: str | None) -> dict[str, Any]:
    """Return what the chat template gets beside the messages."""
    if effort is None:
        return {}
    options: dict[str, Any] = {"enable_thinking": effort != "none"}
    return options if effort == "none" else {**options, "reasoning_effort": effort}
