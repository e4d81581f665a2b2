"""A websocket as its handler sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from attrs import evolve

from lmx_kernel.errors import UnauthorizedError, UnavailableError
from lmx_kernel.http.access_line import AccessLine
from lmx_kernel.http.context import RequestContext
from lmx_kernel.http.exchange import Exchange
from lmx_kernel.http.settings import ServerSettings
from lmx_kernel.http.timers import Deadline
from lmx_kernel.http.websocket_calls import Call, Calls, Failed, Work, report
from lmx_kernel.http.websocket_connection import STOPPING, WebSocketConnection
from lmx_kernel.http.websocket_inbox import Message
from lmx_kernel.interfaces import (
    GOING_AWAY,
    NORMAL,
    REFUSED,
    HttpRequest,
    WebSocket,
    WebSocketClosedError,
)

NO_KEY = "a valid API key is required"

Authorise = Callable[[HttpRequest], Awaitable[HttpRequest]]


class LiveWebSocket(WebSocket):
    """Implements :class:`lmx_kernel.interfaces.WebSocket` over a connection.

    :param authorise: as :meth:`Door.admit`, and holds the answers to wrong keys back.
    :param is_authorised: whether the handshake was.
    """

    def __init__(
        self,
        connection: WebSocketConnection,
        exchange: Exchange,
        settings: ServerSettings,
        authorise: Authorise,
        *,
        is_authorised: bool,
    ) -> None:
        self._connection = connection
        self._exchange = exchange
        self._settings = settings
        self._authorise = authorise
        self._credentials = exchange.request
        self._deadline = Deadline(asyncio.get_running_loop())
        self._has_tried = self._has_received = self._is_receiving = False
        self._read_bytes = 0  # the size of the message that was read last, if no call has it
        self._number = 0
        self._going: str | None = None
        self.calls = Calls(connection.closed, self._on_call_end)
        self._is_authorised = is_authorised
        connection.on_shutdown = self.go_away
        if is_authorised:
            connection.limit(settings.max_body_bytes)
        else:
            connection.limit(min(settings.max_header_bytes, settings.max_body_bytes))
            self._deadline.set(settings.header_timeout_s, self._refuse)

    @property
    def request(self) -> HttpRequest:
        return self._exchange.request

    @property
    def is_authorised(self) -> bool:
        return self._is_authorised

    async def authorise(self, token: str) -> None:
        if self.is_authorised:
            return
        if self._has_tried:
            raise UnauthorizedError(NO_KEY)
        self._has_tried = True
        headers = {**self.request.headers, "authorization": f"Bearer {token}"}
        credentials = evolve(self.request, headers=headers)
        admitted = await self._authorise(credentials)
        self._exchange.note_key(_with_key(self.request, admitted))
        self._credentials = credentials
        self._deadline.clear()
        self._connection.limit(self._settings.max_body_bytes)
        self._is_authorised = True

    async def check_path(self, path: str) -> None:
        await self._authorise(evolve(self._credentials, path=path))

    def __aiter__(self) -> AsyncIterator[Message]:
        return self._messages()

    async def receive(self) -> Message | None:
        self._count_used(-self._read_bytes)
        self._read_bytes = 0
        if self._has_received and not self.is_authorised:
            self._refuse()
        self._is_receiving = True
        self._leave_if_idle()
        try:
            message, self._read_bytes = await self._connection.intake.inbox.get()
        finally:
            self._is_receiving = False
        self._count_used(self._read_bytes)
        self._has_received = True
        return message

    async def send(self, message: Message) -> None:
        self.calls.note_sent(await self._connection.send(message))

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        self._connection.close(code, reason)

    async def start(
        self, name: str, work: Work, failed: Failed, *, is_endless: bool = False
    ) -> asyncio.Task[None] | None:
        self._number += 1
        line = AccessLine(f"{self._exchange.id}-{self._number}", call=name)
        size_bytes, self._read_bytes = self._read_bytes, 0
        call = Call(line, RequestContext(self.request), size_bytes, is_endless)
        is_started = False
        try:
            await self._check_call(call)
            await self.calls.room(is_endless=is_endless)
            is_started = True
            return self.calls.start(call, work, failed)
        except WebSocketClosedError:
            line.cause = "client_left"
        except Exception as exc:  # noqa: BLE001  the client is told
            await report(call, exc, failed)
        finally:
            if not is_started:
                work.close()
                call.log()
                self._count_used(-size_bytes)
        return None

    # --- what the server calls

    def go_away(self, reason: str = STOPPING) -> None:
        """Close as soon as nothing runs, and begin nothing new."""
        self._going = reason
        self._leave_if_idle()

    async def close_when_done(self) -> None:
        """End what still runs; call this when the handler has ended."""
        self._deadline.clear()
        self._connection.close(NORMAL, "")
        self.calls.cancel()
        await self.calls.wait()

    # --- inside

    async def _messages(self) -> AsyncIterator[Message]:
        while (message := await self.receive()) is not None:
            yield message

    async def _check_call(self, call: Call) -> None:
        """Check that a call may run; its key may have been removed meanwhile."""
        if not self.is_authorised:
            raise UnauthorizedError(NO_KEY)
        if self._going is not None:
            raise UnavailableError(f"{self._going}.".capitalize(), retry_after_s=5)
        admitted = await self._authorise(self._credentials)
        call.context.request = _with_key(call.context.request, admitted)

    def _count_used(self, change_bytes: int) -> None:
        if change_bytes:
            self._connection.intake.used_bytes += change_bytes
            self._connection.intake.count()

    def _on_call_end(self, size_bytes: int) -> None:
        self._count_used(-size_bytes)
        self._leave_if_idle()

    def _leave_if_idle(self) -> None:
        if self._going is not None and self._is_receiving and self.calls.is_idle:
            self._connection.close(GOING_AWAY, self._going, "stopping")

    def _refuse(self, *_: Any) -> None:
        self._connection.close(REFUSED, NO_KEY, UnauthorizedError.code)


def _with_key(request: HttpRequest, admitted: HttpRequest) -> HttpRequest:
    return evolve(request, key=admitted.key, terms=admitted.terms)
