"""The dialect as the kernel's HTTP server sees it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from lmx_kernel.dialect.error_object import error_body
from lmx_kernel.errors import LmxError
from lmx_kernel.interfaces import Kernel, Operation
from lmx_responses_api.create import InputTokenCount, Responses
from lmx_responses_api.objects import (
    DeletedObject,
    EventObject,
    InputTokens,
    ItemList,
    ResponseObject,
)
from lmx_responses_api.schema import ItemsQuery, ResponseBody, ResponseQuery
from lmx_responses_api.settings import ResponsesSettings
from lmx_responses_api.stored import Cancellation, InputItems, StoredResponse

PREFIX = "/v1/responses"
ONE = f"{PREFIX}/{{response_id}}"

_OPERATIONS = (
    Operation(
        method="POST",
        path=PREFIX,
        summary="Make a response",
        body=ResponseBody,
        result=ResponseObject,
        streams=True,
        event=EventObject,
    ),
    Operation(
        method="POST",
        path=f"{PREFIX}/input_tokens",
        summary="Count the tokens of what a response would be made from",
        body=ResponseBody,
        result=InputTokens,
    ),
    Operation(
        method="GET",
        path=ONE,
        summary="Show a response, or stream its events again",
        query=ResponseQuery,
        result=ResponseObject,
        streams=True,
        event=EventObject,
    ),
    Operation(method="DELETE", path=ONE, summary="Forget a response", result=DeletedObject),
    Operation(
        method="POST",
        path=f"{ONE}/cancel",
        summary="Cancel a response that is computed in the background",
        result=ResponseObject,
    ),
    Operation(
        method="GET",
        path=f"{ONE}/input_items",
        summary="List what a response was made from",
        query=ItemsQuery,
        result=ItemList,
    ),
)


class ResponsesSurface:
    """Everything below ``/v1/responses``."""

    name = "responses"
    prefix = PREFIX
    scope = "inference"

    def __init__(self, kernel: Kernel, settings: ResponsesSettings) -> None:
        self._kernel = kernel
        self._settings = settings

    def routes(self) -> Iterable[tuple[str, object]]:
        """Return pairs of a falcon URI template and a resource."""
        return [
            (PREFIX, Responses(self._kernel, self._settings)),
            (f"{PREFIX}/input_tokens", InputTokenCount(self._kernel)),
            (ONE, StoredResponse(self._kernel, self._settings)),
            (f"{ONE}/cancel", Cancellation(self._kernel)),
            (f"{ONE}/input_items", InputItems(self._kernel)),
        ]

    def operations(self) -> Iterable[Operation]:
        """Return what each route takes and gives."""
        return _OPERATIONS

    def render_error(self, error: LmxError) -> Mapping[str, Any]:
        """Return the only error body whose message the clients show."""
        return error_body(error)

    def example(self, url: str, model: str) -> str:
        """Return a line to try in a shell."""
        body = msgspec.json.encode({"model": model, "input": "Hello!"}).decode()
        return f"curl {url}{PREFIX} -d {shlex.quote(body)}"
