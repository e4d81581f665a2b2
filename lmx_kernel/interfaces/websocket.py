"""Websocket routes of API surfaces (RFC 6455)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from typing import Any, Protocol, runtime_checkable

from attrs import frozen

from lmx_kernel.errors import LmxError
from lmx_kernel.interfaces.surface import HttpRequest

NORMAL, GOING_AWAY, REFUSED = 1000, 1001, 1008  # close codes: RFC 6455, 7.4.1


class WebSocketClosedError(Exception):
    """The socket is closed: nothing can be sent any more. A handler need not catch it."""


class WebSocket(Protocol):
    """A socket, as its handler sees it.

    What holds for HTTP holds here: a message is as long as a body may be, and has as long to
    arrive; a client that takes nothing for ``server.write_timeout_s``, or does not answer pings, is
    cut off.
    """

    @property
    def request(self) -> HttpRequest:
        """The handshake. Its ``key`` is known when the socket is authorised."""
        ...

    @property
    def is_authorised(self) -> bool:
        """Whether the client may use the path: its key had the scope, or none is needed."""
        ...

    async def authorise(self, token: str) -> None:
        """Authorise the client by a key that came in a message; nothing happens if it is already.
        A wrong key is answered late, as with HTTP.

        :param token: what an HTTP client would send as its bearer token.
        :raises UnauthorizedError: no key, or a wrong one. The client may not try again: close.
        :raises ForbiddenError: the key lacks the scope of the surface.
        :raises LmxError: a plugin refuses the client.
        """
        ...

    async def check_path(self, path: str) -> None:
        """Check that the client may use another path too, for what needs another scope.

        :param path: of a surface.
        :raises ForbiddenError: its key lacks the scope of that path.
        :raises LmxError: as :meth:`authorise`.
        """
        ...

    def __aiter__(self) -> AsyncIterator[str | bytes]:
        """Yield messages as :meth:`receive` does, until the socket is closed."""
        ...

    async def receive(self) -> str | bytes | None:
        """Return the next message, None when the socket is closed.

        A client that is not authorised has one message to show its key in: if its second one is
        asked for, the socket is closed.
        """
        ...

    async def send(self, message: str | bytes) -> None:
        """Send a message, text or binary by its type. Waits while the client reads slowly.

        :raises WebSocketClosedError: the socket is closed.
        """
        ...

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Close the socket; nothing happens if it is closed already.

        :param code: RFC 6455, 7.4; 4000 to 4999 are free to use.
        :param reason: at most 123 bytes of UTF-8 are sent.
        """
        ...

    async def start(
        self,
        name: str,
        work: Coroutine[Any, Any, None],
        failed: Callable[[LmxError], Awaitable[None]],
        *,
        is_endless: bool = False,
    ) -> asyncio.Task[None] | None:
        """Start what a message asks for: a task that is authorised, logged and counted as an HTTP
        request is, with :attr:`Kernel.caller` set. It is cancelled when the socket is closed; a
        server that stops waits for it.

        Waits while the socket has as many running as it may.

        :param name: what is asked for, for the log, such as ``predict``.
        :param work: sends the answer. :class:`WebSocketClosedError` may leave it.
        :param failed: sends an error: what ``work`` raised, or why it was not begun. Whatever is no
            :class:`LmxError` is logged, and is an :class:`InternalError` here.
        :param is_endless: it runs until it is cancelled, as a stream of the log does; nobody waits
            for it.
        :return: the task, for :meth:`asyncio.Task.cancel`; None if it was refused.
        """
        ...


WebSocketHandler = Callable[[WebSocket], Awaitable[None]]


@frozen(kw_only=True)
class WebSocketRoute:
    """A path that clients connect to.

    :param path: without fields; inside of the surface's prefix or outside.
    :param handler: called for each socket, which is closed when it returns.
    :param authorises_later: the key may come in the first message: where keys are needed, the
        handler calls :meth:`WebSocket.authorise` within ``server.header_timeout_s``, or the socket
        is closed. A key in the headers of the handshake counts as well.
    """

    path: str
    handler: WebSocketHandler
    authorises_later: bool = False


@runtime_checkable
class WebSocketRouted(Protocol):
    """An API surface that has websockets as well. Its scope holds for them, and it renders the
    errors of handshakes.
    """

    def websocket_routes(self) -> Iterable[WebSocketRoute]:
        """Return the paths; no other surface may have one of them, for HTTP or for websockets."""
        ...
