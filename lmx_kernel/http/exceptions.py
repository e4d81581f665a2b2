"""Any exception as an error that a client may see."""

from __future__ import annotations

from collections.abc import Mapping

import falcon
import structlog
from attrs import field, frozen

from lmx_kernel.errors import (
    ForbiddenError,
    InternalError,
    InvalidRequestError,
    LmxError,
    MethodNotAllowedError,
    NotFoundError,
    PayloadTooLargeError,
    RequestTimeoutError,
    UnauthorizedError,
    UnavailableError,
)

_log = structlog.get_logger("lmx.http")


class UnsupportedMediaTypeError(InvalidRequestError):
    """The body's content type is not one that the path takes."""

    code = "unsupported_media_type"
    status = 415


class UpgradeRequiredError(InvalidRequestError):
    """The path speaks another protocol than HTTP."""

    code = "upgrade_required"
    status = 426


class FalconError(Exception):
    """Carries an error of falcon out of falcon, which would render a bare one itself."""

    def __init__(self, error: falcon.HTTPError) -> None:
        super().__init__(str(error))
        self.error = error


@frozen
class Fault:
    """An error and the headers that its answer needs beside the usual ones."""

    error: LmxError
    headers: Mapping[str, str] = field(factory=dict)


_BY_STATUS: dict[int, tuple[type[LmxError], str]] = {
    401: (UnauthorizedError, "This path needs a key."),
    403: (ForbiddenError, "This is not allowed."),
    404: (NotFoundError, "No such path."),
    405: (MethodNotAllowedError, "This path does not take this method."),
    408: (RequestTimeoutError, "The request took too long to arrive."),
    413: (PayloadTooLargeError, "The body is too large."),
    415: (UnsupportedMediaTypeError, "The body's content type is not supported here."),
    426: (UpgradeRequiredError, "This path speaks another protocol."),
    503: (UnavailableError, "Not available now."),
}
_RENDERED_HEADERS = ("content-type", "content-length", "retry-after")


def to_lmx_error(exc: Exception, request_id: str) -> Fault:
    """Return what a client may know of ``exc``; what it may not know goes to the log."""
    if isinstance(exc, LmxError):
        return Fault(exc)
    if isinstance(exc, FalconError):
        return _explain_falcon(exc.error)
    if isinstance(exc, RecursionError):
        return Fault(InvalidRequestError("The request is nested too deeply."))
    _log.error("request failed", request_id=request_id, exc_info=exc)
    return Fault(InternalError("Internal error; the server's log has it under this request's id."))


def _explain_falcon(error: falcon.HTTPError) -> Fault:
    status = error.status_code
    unlisted = (InternalError, "Internal error.") if status >= 500 else (InvalidRequestError, "")
    cls, text = _BY_STATUS.get(status, unlisted)
    headers = error.headers or {}
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return Fault(
        cls(error.description or text or error.title or "The request is malformed."),
        {name: value for name, value in pairs if name.lower() not in _RENDERED_HEADERS},
    )
