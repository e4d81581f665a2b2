"""The messages of a socket that nobody has read yet."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

Message = str | bytes

OVERHEAD_BYTES = 256  # about what a short message takes beside its text


class Inbox:
    """Messages in the order in which they came.

    :param on_taken: called after a message was taken.
    :ivar size_bytes: of all messages together, with what each takes beside its text.
    """

    def __init__(self, on_taken: Callable[[], None]) -> None:
        self._on_taken = on_taken
        self._messages: deque[tuple[Message, int]] = deque()
        self._changed = asyncio.Event()
        self._is_closed = False
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: Message, size_bytes: int) -> None:
        """Add a message; it is dropped if the inbox is closed."""
        size_bytes += OVERHEAD_BYTES
        if not self._is_closed:
            self._messages.append((message, size_bytes))
            self.size_bytes += size_bytes
            self._changed.set()

    async def get(self) -> tuple[Message | None, int]:
        """Return the next message and its size in bytes; None and 0 when the inbox is closed."""
        while not self._messages and not self._is_closed:
            self._changed.clear()
            await self._changed.wait()
        if self._is_closed:
            return None, 0
        message, size_bytes = self._messages.popleft()
        self.size_bytes -= size_bytes
        self._on_taken()
        return message, size_bytes

    def close(self) -> None:
        """Drop what is there, and take nothing any more."""
        self._is_closed = True
        self._messages.clear()
        self.size_bytes = 0
        self._changed.set()
