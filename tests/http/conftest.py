"""A real server in this process, with a toy dialect."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import falcon
import httpx2
import pytest
import uvloop
from attrs import define, field
from websockets.exceptions import ConnectionClosed, InvalidStatus

from lmx_kernel.access.door import Door
from lmx_kernel.errors import InvalidRequestError, LmxError, QueueFullError
from lmx_kernel.http.app import build_app
from lmx_kernel.http.context import caller, note_answer, with_caller
from lmx_kernel.http.error_rendering import ErrorRenderer
from lmx_kernel.http.health import Health
from lmx_kernel.http.server import HttpServer
from lmx_kernel.http.settings import ServerSettings
from lmx_kernel.http.shell import Shell
from lmx_kernel.http.surface_table import SurfaceTable
from lmx_kernel.http.tls import pinned_context
from lmx_kernel.interfaces import WebSocketRoute
from lmx_kernel.runtime.answer import LiveAnswer
from lmx_kernel.testing.harness import ask
from lmx_kernel.testing.stub_kernel import hello, websocket
from lmx_kernel.types import Route

KIB, MIB = 1024, 1024 * 1024
HANDSHAKE = (
    b"GET /socket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
CERTIFICATES = Path(__file__).parent / "certificates"  # good for a hundred years


def pytest_asyncio_loop_factories(config, item):
    return {"uvloop": uvloop.new_event_loop}


class Echo:
    async def on_post(self, req, resp):
        body = await req.stream.read()
        resp.data = json.dumps({"size": len(body), "id": req.scope["state"]["request_id"]}).encode()

    async def on_get(self, req, resp):
        resp.data = b'{"ok":true}'


class Failing:
    """Fails in the way that the path names."""

    async def on_post(self, req, resp, kind):
        if kind == "recursion":
            raise RecursionError
        if kind == "bug":
            raise ZeroDivisionError("secret detail")
        if kind == "busy":
            raise QueueFullError("Full.", retry_after_s=300)
        if kind == "lmx":
            raise InvalidRequestError("No good.", param="x")
        if kind == "media":
            raise falcon.HTTPUnsupportedMediaType(description="Not this.")
        if kind == "stream":
            resp.content_type = "text/plain"
            resp.stream = self.stream()

    async def stream(self):
        yield b"first"
        raise ZeroDivisionError("secret detail")


@define
class Slow:
    """Goes on until it is told to end, and notes what happens to it."""

    started: asyncio.Event = field(factory=asyncio.Event)
    finish: asyncio.Event = field(factory=asyncio.Event)
    cancelled: asyncio.Event = field(factory=asyncio.Event)

    async def on_get(self, req, resp):
        resp.content_type = "text/plain"
        resp.stream = self.stream()

    async def on_post(self, req, resp):
        await self.wait()
        resp.data = b"{}"

    async def stream(self):
        yield b"first"
        await self.wait()
        yield b"last"

    async def wait(self):
        self.started.set()
        try:
            await self.finish.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


@define
class Flood:
    """Sends as fast as the client takes."""

    sent_bytes: int = 0
    ended: asyncio.Event = field(factory=asyncio.Event)

    async def on_get(self, req, resp):
        resp.content_type = "text/plain"
        resp.stream = self.stream()

    async def stream(self):
        try:
            for _ in range(4096):
                yield b"x" * 64 * KIB
                self.sent_bytes += 64 * KIB
        finally:
            self.ended.set()


@define
class Sockets:
    """The websockets of the toy: what a message asks for is in the message.

    :ivar callers: what the kernel knew of the client at each message.
    :ivar shares: whose requests those to models were, for a fair queue.
    :ivar ended: set when a handler has ended.
    """

    slow: Slow
    callers: list[Any] = field(factory=list)
    shares: list[str] = field(factory=list)
    listening: asyncio.Event = field(factory=asyncio.Event)
    ended: asyncio.Event = field(factory=asyncio.Event)

    def routes(self):
        yield WebSocketRoute(path="/toy/socket", handler=self.serve)
        yield WebSocketRoute(path="/socket", handler=self.serve)
        yield WebSocketRoute(path="/later", handler=self.authorise, authorises_later=True)
        yield WebSocketRoute(path="/careless", handler=self.serve, authorises_later=True)
        yield WebSocketRoute(path="/deaf", handler=self.listen_late)
        yield WebSocketRoute(path="/broken", handler=self.fail)

    async def serve(self, socket):
        try:
            async for message in socket:
                name = message if isinstance(message, str) else "bytes"
                failed = partial(self.report, socket)
                work = self.answer(socket, message)
                await socket.start(name, work, failed, is_endless=message == "endless")
        finally:
            self.ended.set()

    async def authorise(self, socket):
        await socket.authorise(await socket.receive())
        await socket.send("welcome")
        await self.serve(socket)

    async def listen_late(self, socket):
        await self.listening.wait()
        await self.serve(socket)

    async def fail(self, socket):
        raise ZeroDivisionError("secret detail")

    async def answer(self, socket, message):
        self.callers.append(caller())
        self.shares.append(with_caller(ask("m"), share_prefixes=False).caller)
        match message:
            case "wait" | "endless":
                await self.slow.wait()
                await socket.send("done")
            case "flood":
                while True:
                    await socket.send("x" * 64 * KIB)
            case "bug":
                raise ZeroDivisionError("secret detail")
            case "busy":
                raise QueueFullError("Full.")
            case "model":
                answer = LiveAnswer(ask("m"), "acme/m")
                note_answer(answer, Route(asked="m", model="acme/m"))
                hello(answer)
                await socket.send("hello")
            case "close":
                await socket.close(4001, "enough " * 100)
            case _:
                await socket.send(message)

    async def report(self, socket, error):
        await socket.send(f"error: {error.code}: {error.message}")


class Toy:
    name = "toy"
    prefix = "/toy"
    scope = "inference"

    def __init__(self):
        self.slow, self.flood = Slow(), Flood()
        self.sockets = Sockets(self.slow)

    def websocket_routes(self):
        return self.sockets.routes()

    def routes(self):
        yield "/toy/echo", Echo()
        yield "/toy/fail/{kind}", Failing()
        yield "/toy/slow", self.slow
        yield "/toy/flood", self.flood

    def operations(self):
        return []

    def render_error(self, error: LmxError):
        return {"toy_error": error.code, "text": error.message}


@define
class Client:
    """A raw connection, for what no proper client does."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> SimpleNamespace:
        """Read one answer that has a length."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        status, headers = parse_head(head)
        body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return SimpleNamespace(status=status, headers=headers, body=body)

    async def rest(self) -> bytes:
        """Read until the server closes."""
        received = b""
        try:
            while data := await self.reader.read(64 * KIB):
                received += data
        except ConnectionResetError:
            pass
        return received

    def drop(self) -> None:
        self.writer.transport.abort()


def parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines if line)
    return int(first.split()[1]), headers


def json_of(answer: Any) -> Any:
    return json.loads(answer.body)


@define
class Running:
    """A server that runs, and the toys in it."""

    server: HttpServer
    shell: Shell
    toy: Toy
    http: httpx2.AsyncClient
    clients: list[Client] = field(factory=list)
    refusal: Exception | None = None
    key: str = ""
    is_ready: bool = True
    tls: ssl.SSLContext | None = None
    door: Door | None = None

    async def connect(self, data: bytes = b"") -> Client:
        opened = await asyncio.open_connection("127.0.0.1", self.server.port, ssl=self.tls)
        client = Client(*opened)
        self.clients.append(client)
        client.send(data)
        return client

    def websocket(self, path: str, **options: Any) -> Any:
        options = {"ssl": self.tls, **options} if self.tls else options
        return websocket(str(self.http.base_url).rstrip("/"), path, **options)

    def authorize(self, request):
        if self.refusal is not None:
            raise self.refusal
        return self.door.admit(request) if self.door else attrs.evolve(request, key=self.key)


@pytest.fixture
def until():
    """Let the loop run until something holds that has no event of its own."""

    async def wait(holds: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            while not holds():
                await asyncio.sleep(0)

    return wait


@pytest.fixture
def toy():
    return Toy()


@pytest.fixture
def refused():
    """Connect to a websocket that is refused; gives the status and the body."""

    async def connect(connecting: Any) -> tuple[int, str]:
        with pytest.raises(InvalidStatus) as caught:
            await connecting
        return caught.value.response.status_code, caught.value.response.body.decode()

    return connect


@pytest.fixture
def closed():
    """Read until the server closes a websocket; gives its code and its reason."""

    async def read(client: Any) -> tuple[int, str]:
        with suppress(ConnectionClosed):
            while True:
                await client.recv()
        return client.close_code, client.close_reason

    return read


@pytest.fixture
def handshake():
    """What a client sends first to have a websocket at /socket."""
    return HANDSHAKE


@pytest.fixture
def health():
    return Health(name="x", version="1", docs="", is_ready=lambda: True, status=dict)


Serve = Callable[..., Awaitable[Running]]


@pytest.fixture
def scheme():
    """Return what the server speaks; a test may be parametrised with ``https``."""
    return "http"


@pytest.fixture
async def serve(scheme) -> AsyncIterator[Serve]:
    """Start a server: ``running = await serve(max_body_bytes=10)``."""
    started: list[Running] = []

    async def start(**settings: Any) -> Running:
        if scheme == "https":
            files = {f"tls_{kind}": CERTIFICATES / f"first.{kind}" for kind in ("cert", "key")}
            settings = {**files, **settings}
        settings = ServerSettings(**{"port": 0, "allowed_hosts": ("x",), **settings})
        toy = Toy()
        health = Health(
            name="toy",
            version="1",
            docs="none",
            is_ready=lambda: running.is_ready,
            status=lambda: {"models": 0},
        )
        app, table = build_app([toy], health), SurfaceTable()
        table.replace(app.served)
        shell = Shell(
            app,
            settings,
            ErrorRenderer(table),
            lambda request: running.authorize(request),  # noqa: PLW0108 - made below
        )
        server = HttpServer(settings, shell)
        await server.start()
        http = httpx2.AsyncClient(
            base_url=f"{settings.scheme}://127.0.0.1:{server.port}", timeout=60, verify=False
        )
        running = Running(server, shell, toy, http)
        if settings.tls_cert:
            running.tls = pinned_context(settings.tls_cert)
        started.append(running)
        return running

    yield start
    for running in started:
        for client in running.clients:
            client.drop()
        await running.http.aclose()
        await running.server.stop()
