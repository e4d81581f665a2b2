"""Errors as HTTP answers, in the shape of the dialect that owns the path."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from attrs import frozen

from lmx_kernel.dialect.error_object import default_error_body
from lmx_kernel.errors import LmxError
from lmx_kernel.http.surface_table import SurfaceTable

RETRY_AFTER_MAX_S = 60  # clients ignore a longer one and fall back to their own schedule

Headers = list[tuple[bytes, bytes]]

_log = structlog.get_logger("lmx.http")


@frozen
class ErrorReply:
    """A complete answer."""

    status: int
    headers: Headers
    body: bytes

    def encode(self) -> bytes:
        """Return the answer as bytes for a connection that is closed after it."""
        status = HTTPStatus(self.status)
        lines = [b"HTTP/1.1 %d %s" % (status, status.phrase.encode())]
        lines += [name + b": " + value for name, value in self.headers]
        return b"\r\n".join([*lines, b"connection: close", b"", self.body])


class ErrorRenderer:
    """Renders errors: each surface those below its own prefix, the rest in the default shape."""

    def __init__(self, surfaces: SurfaceTable) -> None:
        self._surfaces = surfaces

    def render(
        self, error: LmxError, path: str, request_headers: Mapping[str, str] | None = None
    ) -> ErrorReply:
        """Return the answer for ``error`` of a request.

        :param path: "" when it is not known.
        :param request_headers: with names in lower case; None when they are not known.
        """
        body = msgspec.json.encode(self._shape(error, path, request_headers or {}))
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"x-should-retry", b"true" if error.retryable else b"false"),
        ]
        if (seconds := _retry_after(error)) is not None:
            headers.append((b"retry-after", b"%d" % seconds))
        return ErrorReply(error.status, headers, body)

    def _shape(
        self, error: LmxError, path: str, request_headers: Mapping[str, str]
    ) -> Mapping[str, Any]:
        if (surface := self._surfaces.answering(path, request_headers)) is not None:
            try:
                return surface.render_error(error)
            except (Exception, SystemExit):  # noqa: BLE001  a plugin's: the client gets the default shape
                _log.exception("render_error failed", surface=surface.name)
        return default_error_body(error)


def _retry_after(error: LmxError) -> int | None:
    seconds = error.retry_after_s
    if seconds is None:
        return 1 if error.retryable and error.status in (429, 503) else None
    return max(1, min(RETRY_AFTER_MAX_S, int(seconds)))
