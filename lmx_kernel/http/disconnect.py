"""Clients that leave before they are answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any

from lmx_kernel.http.body import ClientLeftError, Receive
from lmx_kernel.http.response import ResponseProgress


class DisconnectWatch:
    """Cancels a request's handler when its client leaves.

    :param receive: ASGI's, of a request whose body was read: what follows can only be the end.
    """

    def __init__(self, receive: Receive, response: ResponseProgress) -> None:
        self._receive = receive
        self._response = response
        self._over = asyncio.Event()
        self._client_left = False

    async def run(self, handler: Awaitable[None]) -> None:
        """Await ``handler`` in the running task, which is cancelled when the client leaves.

        :raises ClientLeftError: the client left before the answer was complete.
        """
        task = asyncio.current_task()
        assert task is not None
        watch = asyncio.create_task(self._watch(task))
        try:
            await handler
        except asyncio.CancelledError:
            if not self._client_left or task.uncancel():
                raise
            raise ClientLeftError from None
        finally:
            self._over.set()
            watch.cancel()

    async def disconnect(self) -> Mapping[str, Any]:
        """Return ASGI's event of a disconnect when the client left, or the handler has ended."""
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def _watch(self, task: asyncio.Task[Any]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self._response.is_complete:  # uvicorn reports one after each complete answer, too
            self._client_left = True
            self._over.set()
            task.cancel()
