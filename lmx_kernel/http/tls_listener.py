"""Accepts connections that begin with a TLS handshake."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import structlog

from lmx_kernel.http.connection import Connections
from lmx_kernel.http.connection_limits import ConnectionLimits
from lmx_kernel.http.protocol import HttpConnection
from lmx_kernel.http.settings import ServerSettings
from lmx_kernel.http.tls import ServerCertificate

ACCEPT_PAUSE_S = 0.5  # after a failure, such as one for want of files
ACCEPTED_AT_ONCE = 64

_log = structlog.get_logger("lmx.http")


class TlsListener:
    """Accepts connections until it is closed. asyncio's own server does not tell of a handshake
    that is not complete, so whoever begins many would be in no count.

    A connection counts from its beginning, and its handshake has as long as headers have.

    :param sock: listens already.
    :param limits: clients beyond those that are served or told of it are closed at once.
    """

    def __init__(
        self,
        sock: socket.socket,
        certificate: ServerCertificate,
        connections: Connections,
        settings: ServerSettings,
        limits: ConnectionLimits,
        make_connection: Callable[[], HttpConnection],
    ) -> None:
        self._socket = sock
        self._certificate = certificate
        self._connections = connections
        self._settings = settings
        self._limits = limits
        self._make_connection = make_connection
        self._handshakes: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._listen()

    def close(self) -> None:
        """Accept no more, and end the handshakes that are not complete."""
        self._loop.remove_reader(self._socket)
        if self._pause is not None:
            self._pause.cancel()
        for handshake in self._handshakes:
            handshake.cancel()

    def _listen(self) -> None:
        self._loop.add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                client, address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                _log.warning("accept_failed", reason=error.strerror)
                self._loop.remove_reader(self._socket)
                self._pause = self._loop.call_later(ACCEPT_PAUSE_S, self._listen)
                return
            if self._connections.count >= self._limits.served + self._limits.refused:
                client.close()
                continue
            client.setblocking(False)
            connection = self._make_connection()
            self._connections.handshakes.add(connection)
            task = self._loop.create_task(self._shake_hands(client, address[0], connection))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def _shake_hands(
        self, client: socket.socket, address: str, connection: HttpConnection
    ) -> None:
        try:
            await self._loop.connect_accepted_socket(
                lambda: connection,
                client,
                ssl=self._certificate.context(),
                ssl_handshake_timeout=self._settings.header_timeout_s,
                ssl_shutdown_timeout=self._settings.write_timeout_s,
            )
        except OSError as error:  # those of TLS and of the deadline as well
            reason = getattr(error, "reason", None) or str(error)
            _log.info("refused", client=address, cause="tls", reason=reason)
        finally:
            self._connections.handshakes.discard(connection)
