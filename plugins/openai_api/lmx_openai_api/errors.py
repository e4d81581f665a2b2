"""Errors as OpenAI clients expect them."""

from __future__ import annotations

from lmx_kernel.errors import LmxError
from lmx_openai_api.objects import ErrorBody

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def error_body(error: LmxError) -> ErrorBody:
    """Return ``error`` as a body, or as the data of a stream's last frame."""
    family = "server_error" if error.status >= 500 else "invalid_request_error"
    return {
        "error": {
            "message": error.message,
            "type": _TYPES.get(error.status, family),
            "param": error.param,
            "code": error.code,
        }
    }
