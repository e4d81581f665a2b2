"""Whole messages out of the frames of a socket (RFC 6455, 5.4 and 8.1)."""

from __future__ import annotations

from collections.abc import Iterator

from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from lmx_kernel.http.websocket_inbox import Message

DATA = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)


class MessageReader:
    """Puts the fragments of messages together.

    :param frames: parses frames; it fails the connection if a message is too long or no message.
    """

    def __init__(self, frames: ServerProtocol) -> None:
        self._frames = frames
        self._fragments = bytearray()
        self._is_text = False

    @property
    def partial_bytes(self) -> int:
        """How much of a message is there that is not complete."""
        return len(self._frames.reader.buffer) + len(self._fragments)

    def read(self, data: bytes) -> tuple[list[tuple[Message, int]], int]:
        """Take what came from the client.

        :return: the messages that are complete now, each with its size in bytes, and how many
            frames came, those of pings included.
        """
        self._frames.receive_data(data)
        events = self._frames.events_received()
        messages = [
            message
            for frame in events
            if isinstance(frame, Frame) and frame.opcode in DATA
            for message in self._add(frame)
        ]
        return messages, len(events)

    def _add(self, frame: Frame) -> Iterator[tuple[Message, int]]:
        if frame.opcode is not Opcode.CONT:
            self._is_text = frame.opcode is Opcode.TEXT
        if not frame.fin:
            self._fragments += frame.data
            return
        data = bytes(self._fragments + frame.data) if self._fragments else bytes(frame.data)
        self._fragments.clear()
        if not self._is_text:
            yield data, len(data)
            return
        try:
            yield data.decode(), len(data)
        except UnicodeDecodeError:
            if self._frames.state is OPEN:
                self._frames.fail(CloseCode.INVALID_DATA, "this text is not UTF-8")
