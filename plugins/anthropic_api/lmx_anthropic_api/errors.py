"""Errors as clients of this dialect expect them."""

from __future__ import annotations

from lmx_anthropic_api.objects import ErrorBody
from lmx_kernel.errors import (
    ContextOverflowError,
    LmxError,
    UnsupportedFieldError,
)

# https://platform.claude.com/docs/en/api/errors; a type that is not there is one of its neighbours.
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_THREAD = "thread"


def check_no_thread(thread: object) -> None:
    """Refuse a message of a thread, whose earlier messages would be kept here.

    :raises UnsupportedFieldError: it is one. Rendered, it has the code at which the SDK's tool
        runner sends the whole conversation instead; without it the runner fails.
    """
    if thread is not None:
        raise UnsupportedFieldError("thread is not supported", param=_THREAD)


def error_body(error: LmxError) -> ErrorBody:
    """Return ``error`` as a body, or as the data of a stream's event ``error``."""
    family = "api_error" if error.status >= 500 else "invalid_request_error"
    body: ErrorBody = {
        "type": "error",
        "error": {"type": _TYPES.get(error.status, family), "message": _message(error)},
    }
    if isinstance(error, UnsupportedFieldError) and error.param == _THREAD:
        body["error"]["details"] = {
            "error_code": "thread_unsupported_request",
            "unsupported": [_THREAD],
        }
    return body


def _message(error: LmxError) -> str:
    """Return an error's message; agents know an overflow by these words, and compact then."""
    if not isinstance(error, ContextOverflowError):
        return error.message
    tokens, limit = error.figures.get("tokens"), error.figures.get("limit")
    if tokens is None or limit is None:
        return f"prompt is too long: {error.message}"
    return f"prompt is too long: {tokens} tokens > {limit} maximum"
