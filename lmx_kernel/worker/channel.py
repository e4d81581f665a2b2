"""The worker's end of the channel: a socket that is also its life line."""

from __future__ import annotations

import os
import socket
import threading

from lmx_kernel.worker.messages import HEADER_BYTES, Message, decode, encode, length_of


class Channel:
    """Blocking frames over the socket that the kernel put in place of standard input."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._reader = connection.makefile("rb")
        self._lock = threading.Lock()

    @classmethod
    def from_stdin(cls) -> Channel:
        """Take over standard input; and send what libraries print to standard error."""
        connection = socket.socket(fileno=os.dup(0))
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        os.dup2(2, 1)
        return cls(connection)

    def send(self, message: Message) -> None:
        """Send one frame. Ends the process if the kernel is gone."""
        frame = encode(message)
        try:
            with self._lock:
                self._socket.sendall(frame)
        except OSError:
            os._exit(0)

    def receive(self) -> Message:
        """Wait for the next frame. Ends the process if the kernel is gone."""
        header = self._read(HEADER_BYTES)
        return decode(self._read(length_of(header)))

    def _read(self, size: int) -> bytes:
        try:
            data = self._reader.read(size)
        except OSError:
            data = b""
        if len(data) < size:
            os._exit(0)
        return data
