"""The websockets that are open."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial

import structlog
from attrs import frozen

from lmx_kernel.http.body import BodyBudget
from lmx_kernel.http.exceptions import to_lmx_error
from lmx_kernel.http.exchange import Exchange
from lmx_kernel.http.websocket import Authorise, LiveWebSocket
from lmx_kernel.http.websocket_connection import WebSocketConnection
from lmx_kernel.http.websocket_handshake import answer_handshake
from lmx_kernel.interfaces import (
    GOING_AWAY,
    REFUSED,
    WebSocketClosedError,
    WebSocketHandler,
    WebSocketRoute,
)

INTERNAL = 1011  # close code: RFC 6455, 7.4.1
LEAVE_S = 2.0  # for a handler to tidy up when its socket is closed
GONE = "this API was switched off"

_log = structlog.get_logger("lmx.http")


@frozen
class OwnedRoute:
    """A route, and the name of the surface that has it."""

    surface: str
    route: WebSocketRoute


OwnedRoutes = Mapping[str, OwnedRoute]


class WebSockets:
    """Serves sockets, and knows which are open.

    :param authorise: as for :class:`LiveWebSocket`.
    """

    def __init__(self, budget: BodyBudget, authorise: Authorise) -> None:
        self._budget = budget
        self._authorise = authorise
        self._open: dict[LiveWebSocket, tuple[OwnedRoute, WebSocketConnection]] = {}

    async def serve(
        self, exchange: Exchange, owned: OwnedRoute, *, is_authorised: bool, is_draining: bool
    ) -> None:
        """Make the connection of a request a websocket, and serve it until it is closed.

        :raises LmxError: the handshake is wrong; the client can still be told.
        :raises FalconError: likewise.
        :raises ClientLeftError: the client has left already.
        """
        upgrade = exchange.upgrade
        assert upgrade is not None
        opening = answer_handshake(upgrade.headers, exchange.usual_headers)
        make = partial(WebSocketConnection, opening, self._budget)
        connection: WebSocketConnection = upgrade.switch(make)
        exchange.response.status = 101
        exchange.context.answers = None  # those of calls are theirs
        socket = LiveWebSocket(
            connection,
            exchange,
            self._budget.settings,
            self._authorise,
            is_authorised=is_authorised,
        )
        if is_draining:
            socket.go_away()
        self._open[socket] = owned, connection
        try:
            await _handle(owned.route.handler, socket, connection, exchange)
        finally:
            del self._open[socket]
            await socket.close_when_done()
            exchange.response.body_bytes = connection.sent_bytes
            exchange.response.is_complete = connection.cause is None
            if connection.cause is not None:
                exchange.note_error(connection.cause)

    def keep_only(self, routes: OwnedRoutes) -> None:
        """Close the sockets whose surface has no such route any more, when their work is done."""
        drain_s = self._budget.settings.drain_s
        for socket, (owned, connection) in self._open.items():
            kept = routes.get(owned.route.path)
            if kept is None or kept.surface != owned.surface:
                socket.go_away(GONE)
                loop = asyncio.get_running_loop()
                loop.call_later(drain_s, connection.close, GOING_AWAY, GONE, "stopping")


async def _handle(
    handler: WebSocketHandler,
    socket: LiveWebSocket,
    connection: WebSocketConnection,
    exchange: Exchange,
) -> None:
    """Run a handler until it ends, or until its socket is closed and it had time to tidy up."""
    handling = asyncio.ensure_future(handler(socket))
    closed = asyncio.ensure_future(connection.closed.wait())
    try:
        await asyncio.wait({handling, closed}, return_when=asyncio.FIRST_COMPLETED)
        if not handling.done():
            socket.calls.cancel()
            await asyncio.wait({handling}, timeout=LEAVE_S)
        exc = handling.exception() if handling.done() and not handling.cancelled() else None
        if isinstance(exc, Exception) and not isinstance(exc, WebSocketClosedError):
            _close_after(exc, connection, exchange)
    finally:
        handling.cancel()
        closed.cancel()


def _close_after(exc: Exception, connection: WebSocketConnection, exchange: Exchange) -> None:
    error = to_lmx_error(exc, exchange.id).error
    code = REFUSED if error.status < 500 else INTERNAL
    connection.close(code, error.message, error.code)
