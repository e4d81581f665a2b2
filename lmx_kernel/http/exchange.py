"""One request and its answer: who asked, what was sent, and what the log says of it."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs
import structlog

from lmx_kernel.http.body import Body, BodyBudget, ClientLeftError, Receive
from lmx_kernel.http.context import RequestContext, current
from lmx_kernel.http.error_rendering import ErrorReply
from lmx_kernel.http.route_headers import route_headers
from lmx_kernel.interfaces import Answer, HttpRequest
from lmx_kernel.observe.redact import one_line

Scope = dict[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# ASGI extensions of our connections: end it in the middle of an answer, or after one that came
# before the end of the request.
CUT = "lmx.cut"
PART = "lmx.part"
CLIENT_LEFT = 499  # only in the log: nobody is there to read a status

_SANE_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_LOGGED_CHARS = 256
_log = structlog.get_logger("lmx.http")


class Exchange:
    """One request on its way through the shell.

    :ivar id: the request's id; handlers find it in ``scope["state"]["request_id"]``.
    :ivar path: without doubled slashes, and without one at the end.
    :ivar context: the request as authorisers and routers see it, and what it started.
    :ivar key: the name of the key that let it in; handlers find it in ``scope["state"]["key"]``.
    :ivar code: of the error that was answered, for the log.
    :ivar extra_headers: go out with the answer, whoever makes it.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, bodies: BodyBudget) -> None:
        self._begun_s = time.perf_counter()
        self._receive = receive
        self._send = send
        self.scope = scope
        self.method: str = scope["method"]
        self.path = scope["path"] = _normalised(scope["path"])
        self.headers = _decoded(scope["headers"])
        self.id = _request_id(self.headers)
        self._state: dict[str, Any] = scope.setdefault("state", {})
        self._state["request_id"] = self.id
        self.context = RequestContext(_request(scope, self.headers))
        current.set(self.context)
        self.key = self._state["key"] = ""
        self.body = Body(bodies, receive, self.headers)
        self.code: str | None = None
        self.extra_headers: list[tuple[bytes, bytes]] = []
        self._request_event: Mapping[str, Any] | None = None
        self._status = 0
        self._sent_bytes = 0
        self._is_complete = False
        self._client_left = False
        self._over = asyncio.Event()

    def let_in(self, key: str) -> None:
        """Note the name of the key that the request came in with."""
        if key:
            self.key = self._state["key"] = key
            self.context.request = attrs.evolve(self.context.request, key=key)

    @property
    def has_started(self) -> bool:
        """Whether the answer's status is out."""
        return self._status != 0

    async def run(self, app: App) -> None:
        """Read the body, then run ``app``; it is cancelled when the client leaves.

        :raises ClientLeftError: the client left before the answer was complete.
        """
        body = await self.body.read()
        self._request_event = {"type": "http.request", "body": body, "more_body": False}
        del body  # or it would live as long as the answer
        task = asyncio.current_task()
        assert task is not None
        watch = asyncio.create_task(self._watch(task))
        try:
            await app(self.scope, self._app_receive, self._app_send)
        except asyncio.CancelledError:
            if not self._client_left or task.uncancel():
                raise
            raise ClientLeftError from None
        finally:
            self._over.set()
            watch.cancel()
        if not self._is_complete:
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
        """End an answer that has begun so that nobody takes it for a whole one."""
        self._call_extension(CUT)

    def _call_extension(self, name: str) -> None:
        extension = self.scope.get("extensions", {}).get(name)
        if extension is not None:
            extension()

    def log(self) -> None:
        """Write the request's line: no body, no query, no header, no prompt and no answer."""
        answers, self.context.answers = self.context.answers, None
        _log.info(
            "request",
            request_id=self.id,
            method=self.method,
            path=printable(self.path),
            status=self._status or CLIENT_LEFT,
            ms=_ms(time.perf_counter() - self._begun_s),
            bytes=self._sent_bytes,
            cause=self.code or self._state.get("cut") or self._leaving(),
            key=self.key,
            **_summary([answer for answer, _ in answers or ()]),
        )

    def _leaving(self) -> str | None:
        return None if self._is_complete else "client_left"

    async def _app_receive(self) -> Mapping[str, Any]:
        if self._request_event is not None:
            event, self._request_event = self._request_event, None
            return event
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def _app_send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.body.release()
            self._status = message["status"]
            headers = [*message.get("headers", ()), (b"x-request-id", self.id.encode())]
            headers += [*self.extra_headers, *self._route_headers()]
            message = {**message, "headers": headers}
        else:
            self._sent_bytes += len(message.get("body", b""))
            self._is_complete = not message.get("more_body", False)
        await self._send(message)

    def _route_headers(self) -> list[tuple[bytes, bytes]]:
        """Return which model answers, and how the request came to it."""
        return next((route_headers(route) for _, route in self.context.answers or ()), [])

    async def _watch(self, task: asyncio.Task[Any]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self._is_complete:  # the server reports a disconnect after a whole answer, too
            self._client_left = True
            self._over.set()
            task.cancel()


def new_request_id() -> str:
    """Return an id that no other request has."""
    return "req_" + os.urandom(12).hex()


def printable(path: str) -> str:
    """Return ``path`` fit for one line of a log."""
    return one_line(path, _LOGGED_CHARS)


def _summary(answers: Sequence[Answer]) -> dict[str, Any]:
    """Return what the answers to one request cost: tokens add up, times are the longest."""
    if not answers:
        return {}
    each = [answer.usage() for answer in answers]
    outcomes = [answer.outcome or "cancelled" for answer in answers]  # nobody reads on
    firsts = [usage.first_token_s for usage in each if usage.first_token_s is not None]
    return {
        "model": answers[0].model,
        "outcome": next((outcome for outcome in outcomes if outcome != "ok"), "ok"),
        "prompt_tokens": sum(usage.prompt_tokens for usage in each),
        "cached_tokens": sum(usage.cached_tokens for usage in each),
        "completion_tokens": sum(usage.completion_tokens for usage in each),
        "queue_ms": _ms(max(usage.queue_s for usage in each)),
        "first_token_ms": _ms(max(firsts)) if firsts else None,
        "total_ms": _ms(max(usage.total_s for usage in each)),
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)


def _request(scope: Scope, headers: Mapping[str, str]) -> HttpRequest:
    client = scope.get("client")
    return HttpRequest(
        method=scope["method"],
        path=scope["path"],
        headers=headers,
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
