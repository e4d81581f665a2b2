"""One channel: messages to a client about one thing it asked for, and its wish to end it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from lmx_kernel.interfaces import WebSocket
from lmx_lmstudio_api.websocket.frames import encode

ENDS = ("cancel", "stop")


class Channel:
    """An open channel.

    :param channel_id: chosen by the client.
    :ivar is_cancelled: whether the client wants no more of it.
    """

    def __init__(self, channel_id: int, socket: WebSocket) -> None:
        self.is_cancelled = False
        self._socket = socket
        self._begin = f'{{"type":"channelSend","channelId":{channel_id},"message":'
        self._end = encode({"type": "channelClose", "channelId": channel_id})
        self._id = channel_id
        self._on_cancel: list[Callable[[], object]] = []

    async def send(self, message: Mapping[str, Any]) -> None:
        """Send a message. Waits while the client reads slowly."""
        await self._socket.send(f"{self._begin}{msgspec.json.encode(message).decode()}}}")

    async def close(self) -> None:
        """Tell the client that nothing follows."""
        await self._socket.send(self._end)

    async def fail(self, error: Mapping[str, Any]) -> None:
        """Tell the client that nothing follows since something failed."""
        frame = {"type": "channelError", "channelId": self._id, "error": error}
        await self._socket.send(encode(frame))

    def on_cancel(self, call: Callable[[], object]) -> None:
        """Call when the client wants no more; at once if it does not already."""
        if self.is_cancelled:
            call()
        self._on_cancel.append(call)

    def cancel(self) -> None:
        """Note that the client wants no more."""
        self.is_cancelled = True
        for call in self._on_cancel:
            call()
