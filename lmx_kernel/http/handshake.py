"""Connections whose TLS handshake is not complete."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import structlog

from lmx_kernel.http.connection import Connections
from lmx_kernel.http.protocol import POLITE_CONNECTIONS, HttpConnection
from lmx_kernel.http.settings import ServerSettings
from lmx_kernel.http.tls import ServerCertificate

_log = structlog.get_logger("lmx.http")


class TlsHandshake(asyncio.Protocol):
    """A connection until its handshake is complete, when a new :class:`HttpConnection` takes over.

    It counts as a connection, and the handshake has as long as headers have.

    :param max_connections: clients beyond this and a few that are told so are closed at once.
    """

    def __init__(
        self,
        certificate: ServerCertificate,
        connections: Connections,
        settings: ServerSettings,
        max_connections: int,
        make_connection: Callable[[], HttpConnection],
    ) -> None:
        self.transport: asyncio.Transport
        self._certificate = certificate
        self._connections = connections
        self._settings = settings
        self._max_connections = max_connections
        self._make_connection = make_connection
        self._connection: HttpConnection | None = None
        self._is_lost = False
        self._early = b""  # what came with the end of the handshake

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self._connections.count - self._max_connections >= POLITE_CONNECTIONS:
            self.transport.abort()
            return
        self.transport.pause_reading()  # until start_tls reads
        self._connections.handshakes.add(self)
        task = asyncio.get_running_loop().create_task(self._shake_hands())
        self._connections.tasks.add(task)
        task.add_done_callback(self._connections.tasks.discard)

    def data_received(self, data: bytes) -> None:
        if self._connection is not None:
            self._connection.data_received(data)
        else:
            self._early += data

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        if self._connection is not None:
            self._connection.connection_lost(exc)

    async def _shake_hands(self) -> None:
        client = self.transport.get_extra_info("peername")
        try:
            transport = await asyncio.get_running_loop().start_tls(
                self.transport,
                self,
                self._certificate.context(),
                server_side=True,
                ssl_handshake_timeout=self._settings.header_timeout_s,
                ssl_shutdown_timeout=self._settings.write_timeout_s,
            )
        except OSError as error:  # also TLS's own, and the end of the time
            reason = getattr(error, "reason", None) or str(error)
            _log.info("refused", client=client and client[0], cause="tls", reason=reason)
            self.transport.abort()
            return
        finally:
            self._connections.handshakes.discard(self)
        if transport is not None and not self._is_lost:
            self._hand_over(transport)

    def _hand_over(self, transport: asyncio.Transport) -> None:
        self._connection = self._make_connection()
        transport.set_protocol(self._connection)
        self._connection.connection_made(transport)
        if self._early:
            self._connection.data_received(self._early)
