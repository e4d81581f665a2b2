"""All errors that a user may see, as one class hierarchy.

Each class has a stable ``code`` that clients may test for, the HTTP ``status`` of the response, and
whether a retry of the same request can help. Surfaces render these and define none of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class LmxError(Exception):
    """Base of all errors that a user may see.

    :param message: one sentence for the user; contains no absolute path.
    :param param: the request field at fault, as the client wrote it.
    :param retry_after_s: when to retry, for errors that pass with time (1..60).
    :param retryable: overrides the default of the class.
    :param figures: the numbers in the message by name, for clients that know an error by a sentence
        of their own.
    """

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    retryable: bool = False

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: int | None = None,
        retryable: bool | None = None,
        figures: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.figures = dict(figures or {})
        if retryable is not None:
            self.retryable = retryable


class InvalidRequestError(LmxError):
    """The request is malformed, or asks for something that this server does not support."""

    code = "invalid_request"
    status = 400


class UnsupportedFieldError(InvalidRequestError):
    """A field of the API that LMX does not implement: refused, never ignored."""

    code = "unsupported_field"


class InvalidSchemaError(InvalidRequestError):
    """A schema, pattern or grammar is wrong, or cannot be followed exactly."""

    code = "invalid_schema"


class ContextOverflowError(InvalidRequestError):
    """The prompt does not fit the context the model was loaded with. Its figures are the ``tokens``
    of the prompt (an estimate if it is far too long) and the context's ``limit``, as far as known.
    """

    code = "context_length_exceeded"


class UnauthorizedError(LmxError):
    """No API key, or an unknown one."""

    code = "unauthorized"
    status = 401


class ForbiddenError(LmxError):
    """The key is known, but its scopes do not allow this."""

    code = "forbidden"
    status = 403


class NotFoundError(LmxError):
    """No such path or object."""

    code = "not_found"
    status = 404


class ModelNotFoundError(NotFoundError):
    """No model of that name is in the catalogue."""

    code = "model_not_found"


class MethodNotAllowedError(LmxError):
    """The path exists, but not with this method."""

    code = "method_not_allowed"
    status = 405


class RequestTimeoutError(LmxError):
    """The client took too long to send its request."""

    code = "request_timeout"
    status = 408


class ConflictError(LmxError):
    """The operation is not possible in the current state of the object."""

    code = "conflict"
    status = 409


class ModelUnloadedError(ConflictError):
    """The model was unloaded on request while this one waited for it or ran on it. A new request
    loads it again, so clients must not retry by themselves: it was unloaded on purpose.
    """

    code = "model_unloaded"


class PayloadTooLargeError(LmxError):
    """The body is larger than the server accepts."""

    code = "payload_too_large"
    status = 413


class ModelUnusableError(LmxError):
    """The model's files are missing, damaged or unsupported. Retrying cannot help."""

    code = "model_unusable"
    status = 422


class ModelNotLoadedError(LmxError):
    """The model is on disk, but the config does not allow a request to load it."""

    code = "model_not_loaded"
    status = 409


class InsufficientMemoryError(LmxError):
    """The model does not fit into the rest of the memory budget."""

    code = "insufficient_memory"
    status = 422


class RateLimitedError(LmxError):
    """The key has had its tokens of this minute."""

    code = "rate_limited"
    status = 429
    retryable = True


class QueueFullError(LmxError):
    """Too many requests are waiting already."""

    code = "queue_full"
    status = 429
    retryable = True


class HeadersTooLargeError(LmxError):
    """The request's headers are larger than the server accepts."""

    code = "headers_too_large"
    status = 431


class InternalError(LmxError):
    """An error of LMX itself."""

    code = "internal_error"
    status = 500


class EngineCrashedError(LmxError):
    """The model's worker crashed with this request in flight, more than once."""

    code = "engine_crashed"
    status = 502


class EngineFailedError(LmxError):
    """The engine failed for this one request (for instance: its numbers were not finite)."""

    code = "engine_failed"
    status = 502


class UnavailableError(LmxError):
    """Not now: the model cools down after crashes, the queue is too slow, the server stops."""

    code = "unavailable"
    status = 503
    retryable = True


class DiskFullError(LmxError):
    """There is not enough free space on the disk, or it ran out during the operation."""

    code = "disk_full"
    status = 507


def _family(cls: type[LmxError]) -> list[type[LmxError]]:
    return [cls, *(member for child in cls.__subclasses__() for member in _family(child))]


def from_code(
    code: str,
    message: str,
    param: str | None = None,
    figures: Mapping[str, int] | None = None,
) -> LmxError:
    """Return the error that a worker or a daemon reported by its code; unknown codes are internal
    errors. A class that has the code from its base is not meant: it may want other arguments.
    """
    known = {cls.code: cls for cls in _family(LmxError) if "code" in vars(cls)}
    return known.get(code, InternalError)(message, param=param, figures=figures)
