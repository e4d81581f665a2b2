"""The HTTP/1.1 connection: uvicorn's, with limits on what a client may send and how slowly."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import httptools
import structlog
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from lmx_kernel.errors import (
    HeadersTooLargeError,
    InvalidRequestError,
    LmxError,
    RequestTimeoutError,
    UnavailableError,
)
from lmx_kernel.http.exchange import CUT, new_request_id, printable
from lmx_kernel.http.framing import check_framing, without_upgrade
from lmx_kernel.http.render import ErrorRenderer
from lmx_kernel.http.settings import ServerSettings

CLOSE_S = 1.0  # for a refused client to read why
POLITE_CONNECTIONS = 256  # beyond the cap by so many: not even told why

_log = structlog.get_logger("lmx.http")


class Connections(ServerState):
    """uvicorn's record of what is open, with an event for when nothing is."""

    def __init__(self) -> None:
        super().__init__()
        self.none_open = asyncio.Event()
        self.none_open.set()


class HttpConnection(HttpToolsProtocol):
    """One connection of a client.

    Requests are not pipelined: what follows a request before its answer is complete is dropped, and
    the connection closed after the answer. A client may then ask again (RFC 9112, 9.3.2), and we
    always notice when it leaves.
    """

    def __init__(
        self,
        config: Config,
        connections: Connections,
        settings: ServerSettings,
        renderer: ErrorRenderer,
        max_connections: int,
    ) -> None:
        super().__init__(config=config, server_state=connections, app_state={})
        self._none_open = connections.none_open
        self._settings = settings
        self._renderer = renderer
        self._max_connections = max_connections
        self.url = b""
        self._is_idle = True
        self._is_deaf = False
        self._refusal: LmxError | None = None
        self._overhead_bytes = 0  # since the request began, or since the last piece of its body
        self._deadline: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._none_open.clear()
        excess = len(self.connections) - self._max_connections
        if excess > POLITE_CONNECTIONS:
            transport.abort()
        elif excess > 0:
            self._refuse(UnavailableError("Too many connections.", retry_after_s=1))
        else:
            self._set_deadline(self._settings.header_timeout_s, self._headers_are_late)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._clear_deadline()
        self._clear_stall()
        if not self.connections:
            self._none_open.set()

    def shutdown(self) -> None:
        """Close when the running answer is complete, or now if there is none."""
        super().shutdown()
        self._bound_closing()

    def cut(self) -> None:
        """Close in the middle of an answer."""
        self.cycle.disconnected = True  # or uvicorn logs that the app gave no complete answer
        self.transport.close()
        self._bound_closing()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._bound_closing()

    # What comes in

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._is_idle and not self._is_deaf:
            self._is_idle = False
            if self._deadline is None:
                self._set_deadline(self._settings.header_timeout_s, self._headers_are_late)
        limit_bytes = self._settings.max_header_bytes
        while data and not self._is_deaf:
            room = limit_bytes - self._overhead_bytes
            part, data = data[:room], data[room:]
            self._overhead_bytes += len(part)
            self._feed(part)
            if self._overhead_bytes >= limit_bytes:
                self._refuse(HeadersTooLargeError(f"Headers are limited to {limit_bytes} bytes."))

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            # The parser takes a request to upgrade as one without a body. We never upgrade.
            request = without_upgrade(self.parser, self.url, self.headers)
            self.parser = httptools.HttpRequestParser(self)
            self._feed(request + data[exc.args[0] :])
        except httptools.HttpParserError:
            self._refuse(self._refusal or InvalidRequestError("This is not valid HTTP/1.1."))

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
        super().on_headers_complete()
        cast(dict[str, Any], self.scope)["extensions"] = {CUT: self.cut}
        self._clear_deadline()

    def on_body(self, body: bytes) -> None:
        self._overhead_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._overhead_bytes = 0
        super().on_message_complete()

    # What goes out

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._is_idle = True
        self._overhead_bytes = 0
        self._bound_closing()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_stall(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._clear_stall()

    def _watch_stall(self, size_bytes: int) -> None:
        self._stall = self.loop.call_later(
            self._settings.write_timeout_s, self._reader_may_be_stalled, size_bytes
        )

    def _reader_may_be_stalled(self, before_bytes: int) -> None:
        now_bytes = self.transport.get_write_buffer_size()
        if now_bytes < before_bytes:
            self._watch_stall(now_bytes)
            return
        self.scope["state"]["cut"] = "reader_stalled"
        self.transport.abort()

    def _clear_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    # Refusals and deadlines

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self, error: LmxError) -> None:
        if self._is_deaf:
            return
        self._is_deaf = True
        if self._is_answering():  # two answers would mix
            self.transport.abort()
            return
        request_id = new_request_id()
        path = self.url.partition(b"?")[0].decode("latin-1")
        _log.info("refused", request_id=request_id, path=printable(path), cause=error.code)
        answer = self._renderer.render(error, path)
        answer.headers.append((b"x-request-id", request_id.encode()))
        self.transport.write(answer.encode())
        self.transport.write_eof()  # and go on reading: a close now may destroy the answer
        self._set_deadline(CLOSE_S, self.transport.abort)

    def _headers_are_late(self) -> None:
        if self._overhead_bytes:
            self._refuse(RequestTimeoutError("The headers took too long to arrive."))
        else:
            self.transport.abort()

    def _bound_closing(self) -> None:
        if self.transport.is_closing():  # asyncio would wait for the reader for ever
            self._set_deadline(self._settings.write_timeout_s, self.transport.abort)

    def _set_deadline(self, seconds: float, act: Callable[[], None]) -> None:
        self._clear_deadline()
        self._deadline = self.loop.call_later(seconds, act)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
