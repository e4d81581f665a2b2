"""The kernel's end of the channel to a worker: a socket that is also the worker's life line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from lmx_kernel.worker.messages import HEADER_BYTES, Message, decode, encode, length_of

LATER_S = 0.5


class Channel(asyncio.Protocol):
    """Passes on what a worker sends, message by message, and sends it messages.

    One message is handled in a turn of the event loop: whoever waits for it goes first, and unread
    ones slow the worker down.

    :param on_message: called for each.
    :ivar ended: done when no more will come, with the reason if it is not the worker's end: a
        message could not be read or handled.
    """

    def __init__(self, on_message: Callable[[Message], None]) -> None:
        self.ended: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self._on_message = on_message
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._reading_soon: asyncio.Handle | None = None
        self._is_cut = False
        self._unsent = b""
        self._flush_soon: asyncio.Handle | None = None
        self._flush_later: asyncio.Handle | None = None

    def send(self, message: Message, *, later: bool) -> None:
        """Send a message; dropped if the worker is gone already. Messages of one turn of the event
        loop go together: each write wakes the worker, which costs more than the message.

        :param later: it goes with the next message, or after half a second.
        """
        self._unsent += encode(message)
        loop = asyncio.get_running_loop()
        if later:
            self._flush_later = self._flush_later or loop.call_later(LATER_S, self._flush)
        elif self._flush_soon is None:
            self._flush_soon = loop.call_soon(self._flush)

    def close(self) -> None:
        """Close the socket, which ends the worker. Messages that were not handled are dropped."""
        self._received.clear()
        if self._transport is not None:
            self._transport.close()

    # --- what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note that the channel is open."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Handle the message that is complete now, if one is."""
        self._received += data
        if self._reading_soon is None:
            self._read()

    def connection_lost(self, _: Exception | None) -> None:
        """Note that nothing more will come than what is here."""
        self._is_cut = True
        if self._reading_soon is None:
            self._end(None)

    # --- inside

    def _read(self) -> None:
        """Handle the first message, and the next ones in later turns."""
        self._reading_soon = None
        if size := self._first_bytes():
            self._take(bytes(self._received[HEADER_BYTES:size]))
            del self._received[:size]
        if self._first_bytes():
            self._pause(is_paused=True)
            self._reading_soon = asyncio.get_running_loop().call_soon(self._read)
        elif self._is_cut:
            self._end(None)
        else:
            self._pause(is_paused=False)

    def _take(self, payload: bytes) -> None:
        if self.ended.done():
            return
        try:
            self._on_message(decode(payload))
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing can be read any more
            self._end(error)

    def _first_bytes(self) -> int:
        """Return the size of the first message, header included; 0 if it is not complete."""
        if len(self._received) < HEADER_BYTES:
            return 0
        size = HEADER_BYTES + length_of(bytes(self._received[:HEADER_BYTES]))
        return size if len(self._received) >= size else 0

    def _pause(self, *, is_paused: bool) -> None:
        """Let the socket's data wait, or not; what is so already stays so."""
        if self._transport is None or self._is_cut or self._transport.is_reading() != is_paused:
            return
        if is_paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _end(self, reason: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(reason)

    def _flush(self) -> None:
        if self._flush_later is not None:
            self._flush_later.cancel()
        self._flush_soon = self._flush_later = None
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(self._unsent)
        self._unsent = b""
