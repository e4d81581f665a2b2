"""What a socket receives: within limits of size, time and rate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from websockets.server import ServerProtocol

from lmx_kernel.errors import UnavailableError
from lmx_kernel.http.body import BodyBudget
from lmx_kernel.http.timers import Deadline
from lmx_kernel.http.websocket_inbox import Inbox
from lmx_kernel.http.websocket_messages import MessageReader

FRAMES_AT_ONCE = 64  # then others have their turn
PART_BYTES = 4096  # so many of the smallest frames are parsed in some milliseconds
PACE_S = 0.005  # between two turns of all who send so many

TOO_LATE, TRY_LATER = 1008, 1013  # close codes; the second is IANA's, for RFC 6455

Fail = Callable[[int, str, str], None]


class Intake:
    """Reads a socket. A client that sends more than is read has to wait: TCP makes it.

    :param fail: called with close code, reason, and the cause for the log.
    :param answer: called when the parser may have something to send, such as a pong.
    :ivar inbox: the messages that were not read yet.
    :ivar used_bytes: of messages that were read, and are still worked on. Call :meth:`count` after
        a change.
    :ivar is_held: nothing is read at the moment, so a silence says nothing of the client.
    """

    def __init__(
        self,
        frames: ServerProtocol,
        budget: BodyBudget,
        fail: Fail,
        answer: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = MessageReader(frames)
        self._budget = budget
        self._fail = fail
        self._answer = answer
        self._transport: asyncio.Transport
        self._unparsed = bytearray()
        self._late = Deadline(self._loop)
        self._counted_bytes = 0
        self._is_pacing = False
        self._is_closed = False
        self.inbox = Inbox(self.count)
        self.used_bytes = 0
        self.is_held = False

    def open(self, transport: asyncio.Transport) -> None:
        """Begin to read from here."""
        self._transport = transport

    def close(self) -> None:
        """Drop all messages. What still comes is parsed only, for the client's close frame."""
        self._is_closed = True
        self.inbox.close()
        self._late.clear()
        self.count()

    def feed(self, data: bytes) -> None:
        """Take what came from the client."""
        self._unparsed += data
        if not self._is_pacing:
            self._parse()

    def count(self) -> None:
        """Count the bytes that are held, and decide whether more is read."""
        held_bytes = 0
        if not self._is_closed:
            held_bytes = self.inbox.size_bytes + self.used_bytes
            held_bytes += self._reader.partial_bytes + len(self._unparsed)
            try:
                self._budget.check(held_bytes - self._counted_bytes, is_declared=True)
            except UnavailableError as error:
                self._fail(TRY_LATER, error.message, error.code)
                return  # which has closed this
            # Not before: the pings of a client come behind all that it has sent.
            self._hold(self.inbox.size_bytes > self._budget.settings.max_body_bytes)
        else:
            self._hold(False)
        self._budget.used_bytes += held_bytes - self._counted_bytes
        self._counted_bytes = held_bytes

    def _parse(self) -> None:
        self._budget.hasty -= self._is_pacing
        self._is_pacing = False
        count = 0
        while self._unparsed and count < FRAMES_AT_ONCE:
            part = bytes(self._unparsed[:PART_BYTES])
            del self._unparsed[:PART_BYTES]
            messages, frames = self._reader.read(part)
            count += frames
            for message, size_bytes in messages:
                self.inbox.put(message, size_bytes)
            if messages:
                self._late.clear()
        self._answer()
        if self._unparsed and not self._transport.is_closing():
            self._is_pacing = True
            self._budget.hasty += 1
            # Or the loop would do nothing but parse while many send as fast as they can.
            self._loop.call_later(PACE_S * self._budget.hasty, self._parse)
        self.count()
        self._watch_partial()

    def _hold(self, is_full: bool) -> None:
        is_held = is_full or self._is_pacing
        if is_held == self.is_held or self._transport.is_closing():
            return
        self.is_held = is_held
        if is_held:
            self._late.clear()
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()
            self._watch_partial()

    def _watch_partial(self) -> None:
        """Give a message that has begun as long as a body has."""
        if not self._reader.partial_bytes or self.is_held or self._is_closed:
            self._late.clear()
        elif not self._late.is_set:
            self._late.set(self._budget.settings.body_timeout_s, self._on_late)

    def _on_late(self) -> None:
        self._fail(TOO_LATE, "the message took too long to arrive", "request_timeout")
