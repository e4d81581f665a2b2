"""One request and its answer, between the connection and the falcon app."""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from attrs import frozen

from lmx_kernel.http.access_line import AccessLine
from lmx_kernel.http.body import Body, BodyBudget, Receive
from lmx_kernel.http.context import RequestContext, current
from lmx_kernel.http.disconnect import DisconnectWatch
from lmx_kernel.http.error_rendering import ErrorReply
from lmx_kernel.http.response import ResponseProgress
from lmx_kernel.http.route_headers import route_headers
from lmx_kernel.interfaces import HttpRequest

Scope = dict[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# ASGI extensions of our connections: end it in the middle of an answer, or after one that came
# before the end of the request; make it a websocket.
CUT = "lmx.cut"
PART = "lmx.part"
UPGRADE = "lmx.upgrade"

_SANE_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


@frozen
class Upgrade:
    """What a request has that is the handshake of a websocket.

    :param headers: those of the request, with what only concerns its connection.
    :param switch: makes a protocol, and lets it have the connection from now on.
    """

    headers: Sequence[tuple[bytes, bytes]]
    switch: Callable[[Callable[[Any], Any]], Any]


class Exchange:
    """One request on its way through the shell.

    Handlers find its id in ``scope["state"]["request_id"]``, and the name of the key that it came
    with in ``scope["state"]["key"]``.

    :ivar id: the client's own, if it sent one that is fit for a log.
    :ivar context: the request as authorisers and routers see it, and the answers that it started.
    :ivar response: what was sent of the answer.
    :ivar extra_headers: go out with the answer, whoever makes it.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, bodies: BodyBudget) -> None:
        scope["path"] = _normalised(scope["path"])
        request = _request(scope)
        self.id = _request_id(request.headers)
        scope.setdefault("state", {}).update(request_id=self.id, key="")
        self.context = RequestContext(request)
        current.set(self.context)
        self.body = Body(bodies, receive, request.headers)
        self.response = ResponseProgress()
        self.extra_headers: list[tuple[bytes, bytes]] = []
        self._scope = scope
        self._send = send
        self._watch = DisconnectWatch(receive, self.response)
        self._line = AccessLine(self.id)
        self._request_event: Mapping[str, Any] | None = None

    @property
    def request(self) -> HttpRequest:
        """The request; its path is without doubled slashes, and without one at the end."""
        return self.context.request

    @property
    def upgrade(self) -> Upgrade | None:
        """What is needed to make the connection a websocket; None if the client wants none."""
        found: Upgrade | None = self._scope.get("extensions", {}).get(UPGRADE)
        return found

    def note_key(self, request: HttpRequest) -> None:
        """Note the key that the request came with, and its terms.

        :param request: the request with these.
        """
        self._scope["state"]["key"] = request.key
        self.context.request = request

    def note_error(self, code: str) -> None:
        """Note the code of an error for the log."""
        self._line.cause = code

    async def run(self, app: App) -> None:
        """Read the body, then run ``app``; it is cancelled when the client leaves.

        :raises ClientLeftError: the client left before the answer was complete.
        """
        body = await self.body.read()
        self._request_event = {"type": "http.request", "body": body, "more_body": False}
        del body  # or it would live as long as the answer
        try:
            await self._watch.run(app(self._scope, self._app_receive, self._app_send))
        except SystemExit as error:  # a plugin's; it would end the daemon
            raise RuntimeError(f"the handler called sys.exit({error.code!r})") from error
        if not self.response.is_complete:
            raise RuntimeError("the handler ended without a complete answer")

    async def answer(
        self, answer: ErrorReply, extra: Mapping[str, str], *, close: bool = False
    ) -> None:
        """Send a complete answer, and let a client that is still sending read it."""
        headers = [*answer.headers, *_encoded(extra.items())]
        if close or not self.body.is_complete:
            headers.append((b"connection", b"close"))
        start = {"type": "http.response.start", "status": answer.status, "headers": headers}
        await self._app_send(start)
        body = {"type": "http.response.body", "body": answer.body, "more_body": True}
        await self._app_send(body)
        if not self.body.is_complete:
            self._call_extension(PART)
        await self._app_send({"type": "http.response.body"})

    def cut(self) -> None:
        """Break off an answer that has begun, so that no client takes it for a complete one."""
        self._call_extension(CUT)

    def log(self) -> None:
        """Write the request's line into the log."""
        answers, self.context.answers = self.context.answers, None
        if self._line.cause is None:
            self._line.cause = self._scope["state"].get("cut")
        self._line.write(self.request, self.response, [answer for answer, _ in answers or ()])

    def _call_extension(self, name: str) -> None:
        extension = self._scope.get("extensions", {}).get(name)
        if extension is not None:
            extension()

    async def _app_receive(self) -> Mapping[str, Any]:
        if self._request_event is not None:
            event, self._request_event = self._request_event, None
            return event
        return await self._watch.disconnect()

    async def _app_send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.body.release()
            self.response.status = message["status"]
            headers = [*message.get("headers", ()), *self.usual_headers, *self._route_headers()]
            message = {**message, "headers": headers}
        else:
            self.response.body_bytes += len(message.get("body", b""))
            self.response.is_complete = not message.get("more_body", False)
        await self._send(message)

    @property
    def usual_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers that every answer has."""
        # Clients look for the id under either name.
        ids = [(name, self.id.encode()) for name in (b"x-request-id", b"request-id")]
        return [*ids, *self.extra_headers]

    def _route_headers(self) -> list[tuple[bytes, bytes]]:
        """Return which model answers, and how the request was routed to it."""
        return next((route_headers(route) for _, route in self.context.answers or ()), [])


def new_request_id() -> str:
    """Return an id that no other request has."""
    return "req_" + os.urandom(12).hex()


def _request(scope: Scope) -> HttpRequest:
    client = scope.get("client")
    return HttpRequest(
        method=scope["method"],
        path=scope["path"],
        headers=_decoded(scope["headers"]),
        client=client[0] if client else "",
    )


def _request_id(headers: Mapping[str, str]) -> str:
    offered = headers.get("x-request-id", "")
    return offered if _SANE_ID.fullmatch(offered) else new_request_id()


def _normalised(path: str) -> str:
    if "//" in path:
        path = re.sub("/{2,}", "/", path)
    return path.rstrip("/") or "/"


def _decoded(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in pairs:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _encoded(pairs: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in pairs]
