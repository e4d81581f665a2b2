"""Errors as clients of ``/api/v1`` expect them."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from lmx_kernel.errors import LmxError, ModelNotFoundError, NotFoundError, UnsupportedFieldError

ErrorType = Literal[
    "invalid_request", "not_implemented", "model_not_found", "job_not_found", "internal_error"
]


class JobNotFoundError(NotFoundError):
    """There is no download of that id."""

    code = "job_not_found"


class ErrorDetail(TypedDict):
    """Why there is no answer.

    :ivar param: the field of the request that is at fault, if one is.
    """

    type: ErrorType
    message: str
    code: str
    param: NotRequired[str]


class ErrorObject(TypedDict):
    """The body of every answer that is an error."""

    error: ErrorDetail


def error_object(error: LmxError) -> ErrorObject:
    """Return ``error`` as a body."""
    detail: ErrorDetail = {"type": _type(error), "message": error.message, "code": error.code}
    if error.param is not None:
        detail["param"] = error.param
    return {"error": detail}


def _type(error: LmxError) -> ErrorType:
    match error:
        case ModelNotFoundError():
            return "model_not_found"
        case JobNotFoundError():
            return "job_not_found"
        case UnsupportedFieldError():
            return "not_implemented"
    return "internal_error" if error.status >= 500 else "invalid_request"
