"""The life of a connection: how it ends, and when it has lasted too long."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol, cast

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from lmx_kernel.http.body import ClientLeftError
from lmx_kernel.http.settings import ServerSettings
from lmx_kernel.http.timers import Deadline, StallWatch

PART_S = 2.0  # for a refused client to read why
IGNORE_S = 0.002  # between two reads of what refused clients still send, all of them together


class Open(Protocol):
    """An open connection: of HTTP, or of a socket after its upgrade."""

    def shutdown(self) -> None:
        """Close when the running work is done, or now if there is none."""

    def end(self) -> None:
        """Close now, whatever runs."""


class Connections(ServerState):
    """uvicorn's record of what is open.

    :ivar handshakes: connections whose TLS handshake is not complete.
    :ivar none_open: set while nothing else is open.
    :ivar parting: how many were refused and are kept a little for the client to read why.
    """

    def __init__(self) -> None:
        super().__init__()
        self.parting = 0
        self.handshakes: set[Connection] = set()
        self.none_open = asyncio.Event()
        self.none_open.set()

    @property
    def count(self) -> int:
        """How many connections are open."""
        return len(self.connections) + len(self.handshakes)

    @property
    def open(self) -> Sequence[Open]:
        """What is open, apart from handshakes."""
        return cast(Sequence[Open], tuple(self.connections))

    def forget(self, connection: Any) -> None:
        """Note that a connection is lost."""
        self.connections.discard(connection)
        if not self.connections:
            self.none_open.set()


class Connection(HttpToolsProtocol):
    """uvicorn's connection, with every way to end it bounded in time."""

    def __init__(self, config: Config, connections: Connections, settings: ServerSettings) -> None:
        super().__init__(config=config, server_state=connections, app_state={})
        self._all = connections
        self._settings = settings
        self._deadline = Deadline(self.loop)
        self._stall: StallWatch
        self._is_deaf = False
        self._is_parting = False
        self._ignored_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._all.handshakes.discard(self)
        self._all.none_open.clear()
        size, patience_s = transport.get_write_buffer_size, self._settings.write_timeout_s
        self._stall = StallWatch(self.loop, patience_s, size, self._cut_stalled)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._deadline.clear()
        self._stall.stop()
        self._all.parting -= self._is_parting
        self._all.forget(self)

    def shutdown(self) -> None:
        """Close when the running answer is complete, or now if there is none."""
        super().shutdown()
        self._bound_closing()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._bound_closing()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._bound_closing()

    def end(self) -> None:
        """Close now, whatever runs."""
        self.transport.abort()

    def hand_over(self, successor: asyncio.Protocol) -> None:
        """Let another protocol read and write from now on, in place of the running answer.

        :raises ClientLeftError: nobody is there to talk to.
        """
        if self.cycle.disconnected or self.transport.is_closing():
            raise ClientLeftError
        self._deadline.clear()
        self._stall.stop()
        self.cycle.disconnected = True  # or uvicorn would send an answer
        everything: set[Any] = self.connections
        everything.discard(self)
        everything.add(successor)
        self.flow.resume_reading()
        self.transport.set_protocol(successor)
        successor.connection_made(self.transport)

    def cut(self) -> None:
        """Close in the middle of an answer."""
        self.cycle.disconnected = True  # or uvicorn logs that the app gave no complete answer
        self.transport.close()
        self._bound_closing()

    def part(self) -> None:
        """Close once the client had time to read an answer that it may not be waiting for yet.

        To close at once would destroy the answer if the client is still sending.
        """
        if self.cycle is not None:
            self.cycle.disconnected = True
        self._is_deaf = self._is_parting = True
        self._all.parting += 1
        if not self.transport.is_closing():
            if self.transport.can_write_eof():  # not with TLS
                self.transport.write_eof()
            self.flow.resume_reading()
        self._deadline.set(PART_S, self.transport.abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall.start()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stall.stop()

    def _ignore(self, data: bytes) -> None:
        self._ignored_bytes += len(data)
        if self._ignored_bytes > self._settings.max_body_bytes:
            self.transport.abort()
            return
        # Floods of refused clients share one rate, or the loop would do nothing but read them.
        self.flow.pause_reading()
        self.loop.call_later(IGNORE_S * self._all.parting, self._ignore_more)

    def _ignore_more(self) -> None:
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def _bound_closing(self) -> None:
        if self.transport.is_closing():  # asyncio would wait for the reader for ever
            self._deadline.set(self._settings.write_timeout_s, self.transport.abort)

    def _cut_stalled(self) -> None:
        self.scope["state"]["cut"] = "reader_stalled"
        self.transport.abort()
