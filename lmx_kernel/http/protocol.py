"""The parsing of HTTP/1.1: uvicorn's, with limits on what a client may send."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar, cast

import httptools
import structlog
from uvicorn import Config

from lmx_kernel.errors import (
    HeadersTooLargeError,
    InvalidRequestError,
    LmxError,
    RequestTimeoutError,
    UnavailableError,
)
from lmx_kernel.http.access_line import printable
from lmx_kernel.http.connection import Connection, Connections
from lmx_kernel.http.connection_limits import ConnectionLimits
from lmx_kernel.http.error_rendering import ErrorRenderer
from lmx_kernel.http.exchange import CUT, PART, UPGRADE, Upgrade, new_request_id
from lmx_kernel.http.framing import Headers, asks_for_websocket, check_framing, without_upgrade
from lmx_kernel.http.settings import ServerSettings

P = TypeVar("P", bound=asyncio.Protocol)
_log = structlog.get_logger("lmx.http")


class HttpConnection(Connection):
    """One connection of a client.

    Requests are not pipelined: what follows a request before its answer is complete is dropped, and
    the connection is closed after the answer. A client may then repeat the request (RFC 9112,
    9.3.2). So the connection is always read, which is how a client that leaves is noticed.
    """

    def __init__(
        self,
        config: Config,
        connections: Connections,
        settings: ServerSettings,
        renderer: ErrorRenderer,
        limits: ConnectionLimits,
    ) -> None:
        super().__init__(config, connections, settings)
        self._renderer = renderer
        self._limits = limits
        self.url = b""
        self._is_idle = True
        self._has_head = False
        self._refusal: LmxError | None = None
        self._overhead_bytes = 0  # since the request began, or since the last piece of its body
        self._handshake: Headers | None = None  # of the request, if it asks for a websocket

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        excess = self._all.count - self._limits.served
        if excess > self._limits.refused:
            transport.abort()
        elif excess > 0:
            self._refuse(UnavailableError("Too many connections.", retry_after_s=1))
        else:
            self._expect_headers()

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            self._ignore(data)
            return
        self._unset_keepalive_if_required()
        if self._is_idle:
            self._is_idle = False
            if not self._deadline.is_set:
                self._expect_headers()
        limit_bytes = self._settings.max_header_bytes
        while data and not self._is_deaf:
            size = len(data) if self._has_head else limit_bytes - self._overhead_bytes
            part, data = data[:size], data[size:]
            self._overhead_bytes += len(part)
            self._feed(part)
            if self._overhead_bytes >= limit_bytes:
                self._refuse(HeadersTooLargeError(f"Headers are limited to {limit_bytes} bytes."))

    def on_message_begin(self) -> None:
        if self._is_answering():
            self._is_deaf = True
            self.cycle.keep_alive = False
            raise ValueError("pipelined")
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._overhead_bytes = 0
        self._refusal = check_framing(self.parser, self.headers)
        if self._refusal is not None:
            raise ValueError("bad framing")
        if self.parser.should_upgrade():
            return
        self._has_head = True
        super().on_headers_complete()
        extensions: dict[str, Any] = {CUT: self.cut, PART: self.part}
        if self._handshake is not None:
            extensions[UPGRADE] = Upgrade(self._handshake, self._switch)
        cast(dict[str, Any], self.scope)["extensions"] = extensions
        self._deadline.clear()

    def on_body(self, body: bytes) -> None:
        self._overhead_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._overhead_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._is_idle = True
        self._has_head = False
        self._handshake = None
        self._overhead_bytes = 0

    def _switch(self, make: Callable[[Connections], P]) -> P:
        if self._is_deaf:  # it was dropped
            raise InvalidRequestError("A client sends nothing before its handshake is answered.")
        successor = make(self._all)
        self.hand_over(successor)
        return successor

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            # The parser takes a request to upgrade as one without a body. An upgrade to anything
            # but a websocket is ignored; even a websocket begins as a request like any other.
            request = without_upgrade(self.parser, self.url, self.headers)
            if asks_for_websocket(self.parser, self.headers):
                self._handshake = self.headers
            self.parser = httptools.HttpRequestParser(self)
            self._feed(request + data[exc.args[0] :])
        except httptools.HttpParserError:
            self._refuse(self._refusal or InvalidRequestError("This is not valid HTTP/1.1."))

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self, error: LmxError) -> None:
        if self._is_deaf:
            return
        if self._is_answering():  # two answers would mix
            self._is_deaf = True
            self.transport.abort()
            return
        request_id = new_request_id()
        path = self.url.partition(b"?")[0].decode("latin-1")
        _log.info("refused", request_id=request_id, path=printable(path), cause=error.code)
        answer = self._renderer.render(error, path)
        answer.headers.append((b"x-request-id", request_id.encode()))
        self.transport.write(answer.encode())
        self.part()

    def _expect_headers(self) -> None:
        self._deadline.set(self._settings.header_timeout_s, self._on_headers_late)

    def _on_headers_late(self) -> None:
        if self._overhead_bytes:
            self._refuse(RequestTimeoutError("The headers took too long to arrive."))
        else:
            self.transport.abort()
