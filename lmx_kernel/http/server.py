"""The HTTP server: from a free port to the last answer."""

from __future__ import annotations

import asyncio
import socket
from email.utils import formatdate
from functools import partial
from typing import Any

from uvicorn import Config

from lmx_kernel.http.connection import Connections
from lmx_kernel.http.connection_limits import ConnectionLimits
from lmx_kernel.http.port import BACKLOG, listen
from lmx_kernel.http.protocol import HttpConnection
from lmx_kernel.http.settings import ServerSettings
from lmx_kernel.http.shell import Shell
from lmx_kernel.http.tls import ServerCertificate
from lmx_kernel.http.tls_listener import TlsListener

STOP_S = 2.0  # for handlers to tidy up once their clients are cut off


class HttpServer:
    """Serves a shell in the running event loop.

    :meth:`bind` may fail, so call it early; then :meth:`start`; in the end :meth:`drain` and
    :meth:`stop`.

    :ivar port: the port listened on, known after :meth:`bind`.
    """

    def __init__(self, settings: ServerSettings, shell: Shell) -> None:
        self._settings = settings
        self._shell = shell
        self._connections = Connections()
        self._socket: socket.socket | None = None
        self._listener: asyncio.Server | TlsListener | None = None
        self._clock: asyncio.TimerHandle | None = None
        self.port = settings.port

    def bind(self) -> socket.socket:
        """Take the port. Clients that connect from now on wait for :meth:`start`.

        :raises PortInUseError: says who holds it.
        :raises AddressNotReadyError: no such address now.
        :raises ListenError: not allowed.
        """
        self._socket = listen(self._settings.host, self._settings.port)
        self.port = self._socket.getsockname()[1]
        return self._socket

    async def start(self) -> None:
        """Serve from now on; :meth:`bind` first if that was not done.

        :raises TlsFileError: the certificate cannot be used.
        """
        sock = self._socket or self.bind()
        settings, connections = self._settings, self._connections
        config = _uvicorn_config(settings, self._shell)
        limits = ConnectionLimits.of_process(settings.max_connections)
        make = partial(HttpConnection, config, connections, settings, self._shell.renderer, limits)
        self._tick()
        if settings.tls_cert is not None:
            certificate = ServerCertificate(settings.tls_cert, settings.tls_key)
            self._listener = TlsListener(sock, certificate, connections, settings, limits, make)
        else:
            loop = asyncio.get_running_loop()
            self._listener = await loop.create_server(make, sock=sock, backlog=BACKLOG)

    async def drain(self, timeout_s: float) -> bool:
        """Take nothing new and let running answers finish.

        May be called again, for instance after the running answers were told to end.

        :return: whether all have finished within ``timeout_s``.
        """
        self._shell.is_draining = True
        self._stop_listening()
        for connection in self._connections.open:
            connection.shutdown()
        try:
            async with asyncio.timeout(timeout_s):
                await self._connections.none_open.wait()
        except TimeoutError:
            return False
        return True

    async def stop(self) -> None:
        """Cut off whoever is still connected and end. May be called in any state."""
        self._shell.is_draining = True
        self._stop_listening()
        for connection in self._connections.open:
            connection.end()
        await asyncio.sleep(0)  # the connections are told that they are lost
        if tasks := set(self._connections.tasks):
            _, late = await asyncio.wait(tasks, timeout=STOP_S)
            for task in late:
                task.cancel()
        if self._clock is not None:
            self._clock.cancel()

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._socket is not None:
            self._socket.close()

    def _tick(self) -> None:
        date = formatdate(usegmt=True).encode()
        self._connections.default_headers = [(b"date", date)]
        self._clock = asyncio.get_running_loop().call_later(1.0, self._tick)


def _uvicorn_config(settings: ServerSettings, app: Any) -> Config:
    config = Config(
        app,
        http=HttpConnection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="critical",  # the shell and the connection write what there is to write
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_s,  # type: ignore[arg-type]  # any number does
    )
    config.load()
    return config
