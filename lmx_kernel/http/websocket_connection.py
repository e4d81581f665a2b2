"""A connection after its upgrade to a websocket (RFC 6455): what it writes, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable

from websockets.exceptions import PayloadTooBig
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from lmx_kernel.http.body import BodyBudget
from lmx_kernel.http.connection import PART_S, Connections
from lmx_kernel.http.timers import Deadline, StallWatch
from lmx_kernel.http.websocket_inbox import Message
from lmx_kernel.http.websocket_intake import Intake
from lmx_kernel.interfaces import GOING_AWAY, WebSocketClosedError

NO_PONG = 1011  # close code: RFC 6455, 7.4.1, as other servers use it
MAX_REASON_BYTES = 123  # RFC 6455, 5.5

STOPPING = "the server is stopping"
SILENT = logging.Logger("websockets", logging.CRITICAL)  # the library's would have the messages


class WebSocketConnection(asyncio.Protocol):
    """One socket.

    A client that is silent is asked for a sign of life, and cut off if none comes within
    ``keep_alive_s``.

    :param opening: what is sent first: the answer to the handshake.
    :ivar intake: what the client sends.
    :ivar closed: set when no message goes either way any more.
    :ivar cause: why the connection was ended, for the log; None if client or handler closed it.
    :ivar sent_bytes: of frames.
    :ivar on_shutdown: called when the server is to stop; by default, that ends the connection.
    """

    def __init__(self, opening: bytes, budget: BodyBudget, connections: Connections) -> None:
        loop = asyncio.get_running_loop()
        self._settings = budget.settings
        self._frames = frames = ServerProtocol(state=OPEN, logger=SILENT)
        self._opening = opening
        self._all = connections
        self._transport: asyncio.Transport
        self._stall: StallWatch
        self._closing = Deadline(loop)
        self._silence = Deadline(loop)
        self._heard_at = time.monotonic()
        self._writable = asyncio.Event()
        self._writable.set()
        self.intake = Intake(frames, budget, self.fail, self._answer)
        self.closed = asyncio.Event()
        self.cause: str | None = None
        self.sent_bytes = 0
        self.on_shutdown: Callable[[], None] = self.end

    # --- what asyncio and the server call

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        size, patience_s = transport.get_write_buffer_size, self._settings.write_timeout_s
        self._stall = StallWatch(asyncio.get_running_loop(), patience_s, size, self._cut_stalled)
        self.intake.open(transport)
        transport.write(self._opening)
        self._silence.set(self._settings.keep_alive_s / 2, self._look)

    def data_received(self, data: bytes) -> None:
        self._heard_at = time.monotonic()
        self.intake.feed(data)

    def pause_writing(self) -> None:
        self._writable.clear()
        self._stall.start()

    def resume_writing(self) -> None:
        self._writable.set()
        self._stall.stop()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._over("client_left")
        self._stall.stop()
        self._closing.clear()
        self._all.forget(self)

    def shutdown(self) -> None:
        """Close when the running work is done."""
        self.on_shutdown()

    def end(self) -> None:
        """Close now, whatever runs."""
        self.close(GOING_AWAY, STOPPING, "stopping")
        self._transport.close()

    # --- what the socket calls

    def limit(self, message_bytes: int) -> None:
        """Take no longer message from now on."""
        self._frames.max_message_size = message_bytes

    async def send(self, message: Message) -> int:
        """Send a message once the client has taken most of those before; return its bytes.

        :raises WebSocketClosedError: the connection is closed.
        """
        while not self.closed.is_set() and not self._writable.is_set():
            await self._writable.wait()
        if self.closed.is_set():
            raise WebSocketClosedError
        if isinstance(message, str):
            data = message.encode()
            self._frames.send_text(data)
        else:
            data = message
            self._frames.send_binary(data)
        self._write(self._frames.data_to_send())
        return len(data)

    def close(self, code: int, reason: str, cause: str | None = None) -> None:
        """Close as RFC 6455, 7.1.2 has it; a client that does not reply is cut off."""
        if self.closed.is_set():
            return
        self._frames.send_close(code, shortened(reason))
        self._write(self._frames.data_to_send())
        self._over(cause)
        self._closing.set(PART_S, self._transport.abort)

    def fail(self, code: int, reason: str, cause: str) -> None:
        """Close since the client did wrong; nothing that it sends counts any more."""
        if not self.closed.is_set():
            self._frames.fail(code, shortened(reason))
            self._over(cause)
            self._write(self._frames.data_to_send())

    # --- inside

    def _answer(self) -> None:
        """Send what the parser has to say to what came."""
        answers = self._frames.data_to_send()
        if self._frames.state is OPEN:
            # A client that does not read gets no more pongs: they would fill the memory.
            self._write(answers if self._writable.is_set() else ())
            return
        is_too_long = isinstance(self._frames.parser_exc, PayloadTooBig)
        wrong = "payload_too_large" if is_too_long else "invalid_request"
        self._over(None if self._frames.close_rcvd else wrong)
        self._write(answers)

    def _write(self, chunks: Iterable[bytes]) -> None:
        for chunk in chunks:
            if chunk:
                self.sent_bytes += len(chunk)
                self._transport.write(chunk)
            else:
                self._finish()

    def _finish(self) -> None:
        """Close the TCP connection: at once after the closing handshake, else when the client had
        time to read why. To close at once would destroy that if the client is still sending.
        """
        self._closing.set(PART_S, self._transport.abort)
        if self._transport.is_closing():
            return
        if self._frames.close_rcvd is not None:
            self._transport.close()
        elif self._transport.can_write_eof():  # not with TLS
            self._transport.write_eof()

    def _over(self, cause: str | None) -> None:
        if self.closed.is_set():
            return
        self.cause = cause
        self.closed.set()
        self._silence.clear()
        self.intake.close()
        self._writable.set()  # whoever waits is told that it is closed

    def _look(self) -> None:
        now, keep_alive_s = time.monotonic(), self._settings.keep_alive_s
        if self.intake.is_held:
            self._heard_at = now  # it may well have sent something
        if now - self._heard_at >= keep_alive_s:
            self.fail(NO_PONG, "no answer to pings", "no_pong")
            return
        if now - self._heard_at >= keep_alive_s / 4:
            self._frames.send_ping(b"")
            self._write(self._frames.data_to_send())
        self._silence.set(keep_alive_s / 2, self._look)

    def _cut_stalled(self) -> None:
        self._over("reader_stalled")
        self._transport.abort()


def shortened(reason: str) -> str:
    """Return as much of a reason as a close frame can have."""
    return reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore")
