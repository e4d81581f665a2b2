"""Errors as an object of message, type, parameter and code, which several dialects share."""

from __future__ import annotations

from typing import TypedDict

from lmx_kernel.errors import LmxError
from lmx_kernel.http.error_rendering import default_error_body

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class ErrorDetail(TypedDict):
    """Why there is no answer.

    :ivar param: the field of the request that is at fault.
    """

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(TypedDict):
    """The body of every answer that is an error, and the frame that ends a failed stream."""

    error: ErrorDetail


def error_body(error: LmxError) -> ErrorBody:
    """Return ``error`` as a body, or as the data of a stream's last frame: in the kernel's default
    shape, but with types of its own for refused keys and for too many requests.
    """
    detail = default_error_body(error)["error"]
    return {"error": {**detail, "type": _TYPES.get(error.status, detail["type"])}}
