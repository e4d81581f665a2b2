"""The response itself: what it repeats of the request, and what became of it."""

from __future__ import annotations

from functools import cached_property
from typing import Any, cast

import msgspec
from attrs import define

from lmx_kernel.dialect.fields import JsonObject
from lmx_kernel.types import Usage
from lmx_responses_api.objects import (
    FailureObject,
    IncompleteDetails,
    OutputItem,
    ResponseObject,
    Status,
    UsageObject,
)
from lmx_responses_api.sampling import sampling
from lmx_responses_api.schema import LOGPROBS, ResponseBody


@define(kw_only=True, slots=False)
class ResponseHead:
    """What is known of a response before its first event.

    :ivar created_at: in seconds since the epoch.
    :ivar include: what is shown beyond what ``body`` asked for.
    """

    id: str
    created_at: float
    model: str
    body: ResponseBody
    include: frozenset[str] = frozenset()

    def includes(self, what: str) -> bool:
        """Return whether something is shown, by the names of the field ``include``."""
        return what in self.include or what in (self.body.include or ())

    @property
    def with_logprobs(self) -> bool:
        """Whether text is shown with the probabilities of its tokens."""
        return self.body.with_logprobs or LOGPROBS in self.include

    def unfinished(self, status: Status) -> ResponseObject:
        """Return the response before its end."""
        return self.whole(status)

    def whole(
        self,
        status: Status,
        *,
        output: list[OutputItem] | None = None,
        usage: Usage | None = None,
        error: FailureObject | None = None,
        completed_at: float | None = None,
        incomplete: IncompleteDetails | None = None,
    ) -> ResponseObject:
        """Return the response as it is now."""
        now: Any = {
            "status": status,
            "output": output or [],
            "usage": usage and usage_object(usage),
            "error": error,
            "completed_at": None if completed_at is None else int(completed_at),
            "incomplete_details": incomplete,
        }
        return cast(ResponseObject, {**self._repeated, **now})

    @cached_property
    def _repeated(self) -> Any:
        """What does not change; in the order in which the fields are shown."""
        body, used = self.body, sampling(self.body)
        return {
            "id": self.id,
            "object": "response",
            "created_at": int(self.created_at),
            "completed_at": None,
            "status": "in_progress",
            "incomplete_details": None,
            "model": self.model,
            "previous_response_id": body.previous_response_id,
            "instructions": body.instructions,
            "output": [],
            "error": None,
            "tools": [_tool(tool) for tool in body.tools or ()],
            "tool_choice": body.tool_choice or "auto",
            "truncation": body.truncation or "disabled",
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "text": _text(body),
            "top_p": used.top_p,
            "presence_penalty": used.presence_penalty,
            "frequency_penalty": used.frequency_penalty,
            "top_logprobs": body.top_logprobs or 0,
            "temperature": used.temperature,
            "reasoning": _reasoning(body),
            "usage": None,
            "max_output_tokens": body.max_output_tokens,
            "max_tool_calls": body.max_tool_calls,
            "store": body.is_kept,
            "background": bool(body.background),
            "service_tier": body.service_tier or "default",
            "metadata": body.metadata or {},
            "safety_identifier": body.safety_identifier,
            "prompt_cache_key": body.prompt_cache_key,
            "user": body.user,
        }


def usage_object(usage: Usage) -> UsageObject:
    """Return the ``usage`` of a response."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _tool(tool: JsonObject) -> JsonObject:
    if tool.get("type") != "function":
        return tool
    return {"description": None, "parameters": None, "strict": None, **tool}


def _text(body: ResponseBody) -> JsonObject:
    given = body.text and body.text.format
    form = msgspec.to_builtins(given) if given else {"type": "text"}
    verbosity = body.text.verbosity if body.text else None
    return {
        "format": {name: value for name, value in form.items() if value is not None},
        "verbosity": verbosity or "medium",
    }


def _reasoning(body: ResponseBody) -> JsonObject:
    given = body.reasoning
    return {"effort": given.effort if given else None, "summary": body.summary}
