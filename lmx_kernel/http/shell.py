"""The wrapper around the falcon app: what applies to every request, whatever its dialect."""

from __future__ import annotations

import asyncio
from asyncio import sleep
from collections.abc import Callable

import structlog

from lmx_kernel.access.door import Authorize, WrongKeyError
from lmx_kernel.errors import (
    ForbiddenError,
    InternalError,
    InvalidRequestError,
    LmxError,
    NotFoundError,
    UnauthorizedError,
    UnavailableError,
)
from lmx_kernel.http.access_line import printable
from lmx_kernel.http.app import SurfacesApp
from lmx_kernel.http.body import BodyBudget, ClientLeftError, Receive
from lmx_kernel.http.error_rendering import ErrorRenderer, ErrorReply
from lmx_kernel.http.exceptions import to_lmx_error
from lmx_kernel.http.exchange import Exchange, Scope, Send
from lmx_kernel.http.origin import Origins, is_preflight, preflight
from lmx_kernel.http.settings import ServerSettings
from lmx_kernel.http.websockets import WebSockets
from lmx_kernel.interfaces import HttpRequest

OPEN_PATHS = frozenset({"/", "/health", "/health/live", "/health/ready"})  # need no key

# A browser that opens a page cannot send a token, but it can ask its user for a password
# (RFC 7617): that is the key.
ASK_FOR_KEY = (b"www-authenticate", b'Basic realm="LMX: any name, and a key as the password"')

_log = structlog.get_logger("lmx.http")


class Shell:
    """An ASGI app that authorises requests, reads their bodies, cancels those whose clients leave,
    renders every error and writes one line of log for each request.

    :param app: gets each request with its whole body; its websockets are served beside it.
    :param authorize: called for every request but those to the open health paths; if it raises, the
        request is refused.
    :param on_fault: called with the request and what a surface raised that is no refusal.
    :ivar is_draining: refuse new requests.
    """

    def __init__(
        self,
        app: SurfacesApp,
        settings: ServerSettings,
        renderer: ErrorRenderer,
        authorize: Authorize,
        on_fault: Callable[[HttpRequest, Exception], None] = lambda _request, _error: None,
    ) -> None:
        self._app = app
        self._bodies = BodyBudget(settings)
        self._websockets = WebSockets(self._bodies, self._admitted)
        self._authorize = authorize
        self._origins = Origins(settings)
        self._on_fault = on_fault
        self.renderer = renderer
        self.is_draining = False

    @property
    def app(self) -> SurfacesApp:
        """May be replaced at any time: a request that has begun keeps the one that it has, and the
        sockets of surfaces that are gone are closed.
        """
        return self._app

    @app.setter
    def app(self, app: SurfacesApp) -> None:
        self._app = app
        self._websockets.keep_only(app.websockets)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; never raises but for a cancellation from outside."""
        exchange = Exchange(scope, receive, send, self._bodies)
        structlog.contextvars.bind_contextvars(request_id=exchange.id)
        try:
            self._admit(exchange)
            request = exchange.request
            if is_preflight(request.method, request.headers):
                await exchange.answer(ErrorReply(204, preflight(request.headers), b""), {})
            elif exchange.upgrade is not None:
                await self._serve_websocket(exchange)
            else:
                await self._check_access(exchange)
                await exchange.run(self.app)
        except ClientLeftError:
            pass
        except asyncio.CancelledError:
            exchange.cut()
            raise
        except Exception as exc:  # noqa: BLE001  rendered for the client
            await self._fail(exchange, exc)
        finally:
            exchange.body.release()
            exchange.log()

    def _admit(self, exchange: Exchange) -> None:
        if self.is_draining:
            raise UnavailableError("The server is stopping.", retry_after_s=5)
        exchange.extra_headers = self._origins.check(exchange.request.headers)

    async def _serve_websocket(self, exchange: Exchange) -> None:
        owned = self.app.websockets.get(exchange.request.path)
        is_authorised = True
        try:
            await self._check_access(exchange)
        except WrongKeyError:
            raise
        except UnauthorizedError:
            if owned is None or not owned.route.authorises_later:
                raise
            is_authorised = False
        if owned is None:
            raise NotFoundError("No websocket is offered at this path.")
        if not exchange.body.is_complete:  # it would be read as messages
            raise InvalidRequestError("The handshake of a websocket has no body.")
        await self._websockets.serve(
            exchange, owned, is_authorised=is_authorised, is_draining=self.is_draining
        )

    async def _check_access(self, exchange: Exchange) -> None:
        """Refuse the request if it may not have its path."""
        request = exchange.request
        if request.path in OPEN_PATHS and request.method in ("GET", "HEAD"):
            return
        exchange.note_key(await self._admitted(request))

    async def _admitted(self, request: HttpRequest) -> HttpRequest:
        """Return a request with its key and the terms of that. The answer to a wrong key is held
        back.

        :raises LmxError: it may not have its path.
        """
        try:
            return self._authorize(request)
        except WrongKeyError as error:
            await sleep(error.pause_s)
            raise
        except LmxError:
            raise
        except Exception:  # noqa: BLE001  a plugin's: fails closed
            _log.exception("authorize failed", path=printable(request.path))
            raise ForbiddenError("The request could not be authorised.") from None

    async def _fail(self, exchange: Exchange, exc: Exception) -> None:
        exchange.body.release()
        fault = to_lmx_error(exc, exchange.id)
        exchange.note_error(fault.error.code)
        if isinstance(fault.error, InternalError) and not isinstance(exc, LmxError):
            self._on_fault(exchange.request, exc)
        if exchange.response.has_started:
            exchange.cut()
            return
        request = exchange.request
        if fault.error.status == 401 and "text/html" in request.headers.get("accept", ""):
            exchange.extra_headers.append(ASK_FOR_KEY)
        answer = self.renderer.render(fault.error, request.path, request.headers)
        await exchange.answer(answer, fault.headers, close=self.is_draining)
