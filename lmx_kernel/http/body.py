"""Request bodies: read whole, within limits of size and time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from lmx_kernel.errors import PayloadTooLargeError, RequestTimeoutError, UnavailableError
from lmx_kernel.http.exceptions import UnsupportedMediaTypeError
from lmx_kernel.http.settings import ServerSettings

Receive = Callable[[], Awaitable[Mapping[str, Any]]]

LARGE_BYTES = 256 * 1024
PACE_S = 0.002  # between two reads of large bodies, all of them together
IDENTITY = "identity"  # the only content coding that is understood: the body as it is
UNDECLARED_SHARE = 8  # bodies of undeclared length get this fraction: they may well be endless


class ClientLeftError(Exception):
    """The client closed the connection before its request was complete."""


class BodyBudget:
    """The bytes that the bodies of all unanswered requests hold together.

    :ivar large: how many large bodies are arriving.
    :ivar hasty: how many sockets send more frames than are parsed at once.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.used_bytes = 0
        self.large = 0
        self.hasty = 0

    def check(self, size_bytes: int, *, is_declared: bool) -> None:
        """Raise UnavailableError if so many more bytes do not fit now."""
        limit_bytes = self.settings.max_bodies_bytes
        if not is_declared:
            limit_bytes = max(limit_bytes // UNDECLARED_SHARE, self.settings.max_body_bytes)
        if self.used_bytes + size_bytes > limit_bytes:
            raise UnavailableError("Too many large requests at once.", retry_after_s=1)


class Body:
    """The body of one request.

    :ivar is_complete: whether the client has nothing more to send for this request.
    """

    def __init__(self, budget: BodyBudget, receive: Receive, headers: Mapping[str, str]) -> None:
        self._budget = budget
        self._receive = receive
        self._is_declared = "transfer-encoding" not in headers
        self._length = int(headers.get("content-length", 0))
        self._coding = headers.get("content-encoding", IDENTITY)
        self._parts: list[bytes] = []
        self._held_bytes = 0
        self.is_complete = self._is_declared and self._length == 0

    async def read(self) -> bytes:
        """Return the whole body. It counts in the budget until :meth:`release`.

        :raises PayloadTooLargeError: at once for a declared length, else at the limit.
        :raises RequestTimeoutError: the body took longer than ``body_timeout_s``.
        :raises UnavailableError: no room beside the other bodies in flight.
        :raises ClientLeftError: the client left.
        :raises UnsupportedMediaTypeError: the body is compressed (RFC 9110, 15.5.16).
        """
        if self._coding.strip().lower() != IDENTITY and not self.is_complete:
            raise UnsupportedMediaTypeError(
                f"Bodies with content-encoding {self._coding} are not understood: "
                "send the body as it is, without this header."
            )
        self._check(self._length)
        self._budget.check(self._length, is_declared=self._is_declared)
        if self.is_complete:
            return await self._next()
        try:
            async with asyncio.timeout(self._budget.settings.body_timeout_s):
                return await self._read_parts()
        except TimeoutError:
            raise RequestTimeoutError("The body took too long to arrive.") from None

    def release(self) -> None:
        """Drop the bytes and give them back to the budget. May be called again."""
        self._parts.clear()
        self._budget.used_bytes -= self._held_bytes
        self._held_bytes = 0

    async def _read_parts(self) -> bytes:
        while not self.is_complete and self._held_bytes < LARGE_BYTES:
            await self._read_part()
        self._budget.large += 1
        try:
            while not self.is_complete:
                # Or the loop would do nothing but read while many send as fast as they can.
                await asyncio.sleep(PACE_S * (self._budget.large - 1))
                await self._read_part()
        finally:
            self._budget.large -= 1
        body = b"".join(self._parts)
        self._parts.clear()
        return body

    async def _read_part(self) -> None:
        part = await self._next()
        self._check(self._held_bytes + len(part))
        self._budget.check(len(part), is_declared=self._is_declared)
        self._budget.used_bytes += len(part)
        self._held_bytes += len(part)
        self._parts.append(part)

    async def _next(self) -> bytes:
        event = await self._receive()
        if event["type"] == "http.disconnect":
            raise ClientLeftError
        self.is_complete = not event.get("more_body", False)
        part: bytes = event.get("body", b"")
        return part

    def _check(self, size_bytes: int) -> None:
        limit_bytes = self._budget.settings.max_body_bytes
        if size_bytes > limit_bytes:
            raise PayloadTooLargeError(f"The body is larger than {limit_bytes} bytes.")
