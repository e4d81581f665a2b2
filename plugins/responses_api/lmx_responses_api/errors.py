"""Errors that only this dialect has, and what a stream says of the others."""

from __future__ import annotations

from lmx_kernel.errors import ContextOverflowError, InvalidRequestError, LmxError
from lmx_responses_api.objects import FailureObject


class PreviousResponseNotFoundError(InvalidRequestError):
    """A response that the conversation goes on from is not kept, or belongs to another key."""

    code = "previous_response_not_found"


def failure_object(error: LmxError) -> FailureObject:
    """Return what ended a response, by the codes that clients act on.

    They stop at ``context_length_exceeded`` and ``invalid_prompt``, which shows the message; wait
    and retry at ``rate_limit_exceeded``, whose message has the time; and retry at ``server_error``.
    """
    if isinstance(error, ContextOverflowError):
        return {"code": ContextOverflowError.code, "message": error.message}
    if error.status == 429 or (error.retryable and error.retry_after_s):
        message = f"{error.message}; please try again in {error.retry_after_s or 1}s"
        return {"code": "rate_limit_exceeded", "message": message}
    code = "server_error" if error.status >= 500 else "invalid_prompt"
    return {"code": code, "message": error.message}
