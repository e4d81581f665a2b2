"""Errors as an object of message, type, parameter and code, which several dialects share."""

from __future__ import annotations

from typing import TypedDict

from lmx_kernel.errors import LmxError

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


def default_error_body(error: LmxError) -> ErrorBody:
    """Return an error's body in the default shape: for paths that no surface owns, and for surfaces
    without a shape of their own. Most clients of inference servers can read it.
    """
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    return {
        "error": {
            "message": error.message,
            "type": kind,
            "param": error.param,
            "code": error.code,
        }
    }


def error_body(error: LmxError) -> ErrorBody:
    """Return ``error`` as a body, or as the data of a stream's last frame: in the kernel's default
    shape, but with types of its own for refused keys and for too many requests.
    """
    body = default_error_body(error)
    body["error"]["type"] = _TYPES.get(error.status, body["error"]["type"])
    return body
