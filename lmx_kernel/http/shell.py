"""The wrapper around the falcon app: what holds for every request, whichever dialect it speaks."""

from __future__ import annotations

import asyncio

import structlog

from lmx_kernel.access.door import Authorize
from lmx_kernel.errors import ForbiddenError, LmxError, UnavailableError
from lmx_kernel.http.body import BodyBudget, ClientLeftError, Receive
from lmx_kernel.http.error_rendering import ErrorRenderer, ErrorReply
from lmx_kernel.http.exceptions import to_lmx_error
from lmx_kernel.http.exchange import App, Exchange, Scope, Send
from lmx_kernel.http.origin import Origins, is_preflight, preflight
from lmx_kernel.http.settings import ServerSettings

OPEN_PATHS = frozenset({"/", "/health", "/health/live", "/health/ready"})

# A browser that opens a page cannot send a token, but it can ask its user: the password is the key.
ASK_FOR_KEY = (b"www-authenticate", b'Basic realm="LMX: any name, and a key as the password"')

_log = structlog.get_logger("lmx.http")


class Shell:
    """An ASGI app that admits requests, reads their bodies, watches for clients that leave, renders
    every error and writes one line of log for each request.

    :param app: gets each request with its whole body.
    :param authorize: asked for every request but those to the open health paths; if it raises, the
        request is refused.
    :ivar app: may be exchanged at any time; each request is served by one.
    :ivar is_draining: refuse what comes from now on.
    """

    def __init__(
        self, app: App, settings: ServerSettings, renderer: ErrorRenderer, authorize: Authorize
    ) -> None:
        self.app = app
        self._bodies = BodyBudget(settings)
        self._authorize = authorize
        self._origins = Origins(settings)
        self.renderer = renderer
        self.is_draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; never raises but for a cancellation from outside."""
        exchange = Exchange(scope, receive, send, self._bodies)
        structlog.contextvars.bind_contextvars(request_id=exchange.id)
        try:
            self._admit(exchange)
            if is_preflight(exchange.method, exchange.headers):
                await exchange.answer(ErrorReply(204, preflight(exchange.headers), b""), {})
            else:
                self._let_in(exchange)
                await exchange.run(self.app)
        except ClientLeftError:
            pass
        except asyncio.CancelledError:
            exchange.cut()
            raise
        except Exception as exc:  # noqa: BLE001  the last one who can tell the client
            await self._fail(exchange, exc)
        finally:
            exchange.body.release()
            exchange.log()

    def _admit(self, exchange: Exchange) -> None:
        if self.is_draining:
            raise UnavailableError("The server is stopping.", retry_after_s=5)
        exchange.extra_headers = self._origins.check(exchange.headers)

    def _let_in(self, exchange: Exchange) -> None:
        if exchange.path in OPEN_PATHS and exchange.method in ("GET", "HEAD"):
            return
        try:
            exchange.let_in(self._authorize(exchange.context.request))
        except LmxError:
            raise
        except Exception:  # noqa: BLE001  a plugin's: the door fails closed
            _log.exception("authorize failed", request_id=exchange.id)
            raise ForbiddenError("The request could not be authorised.") from None

    async def _fail(self, exchange: Exchange, exc: Exception) -> None:
        exchange.body.release()
        fault = to_lmx_error(exc, exchange.id)
        exchange.code = fault.error.code
        if exchange.has_started:
            exchange.cut()
            return
        if fault.error.status == 401 and "text/html" in exchange.headers.get("accept", ""):
            exchange.extra_headers.append(ASK_FOR_KEY)
        answer = self.renderer.render(fault.error, exchange.path)
        await exchange.answer(answer, fault.headers, close=self.is_draining)
