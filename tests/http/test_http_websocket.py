"""Websockets: the handshake, keys, and what a client asks for."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from lmx_kernel.access.door import Door, WrongKeyError
from lmx_kernel.access.keys import KeyFile, Keyring
from lmx_kernel.errors import ForbiddenError, UnauthorizedError
from lmx_kernel.http.app import RouteClashError, SurfaceError, build_app
from lmx_kernel.http.surface_table import SurfaceTable
from lmx_kernel.interfaces import WebSocketRoute

BOTH = pytest.mark.parametrize("scheme", ["http", "https"], indirect=True)


@BOTH
@pytest.mark.parametrize("path", ["/socket", "/toy/socket", "/toy/socket/"])
async def test_messages_go_both_ways(serve, path):
    running = await serve()
    async with running.websocket(path) as client:
        for message in ("hello", "€", "", b"\x00\xff", "x" * 200_000):
            await client.send(message)
            assert await client.recv() == message
        await client.send(["in ", "two ", "fragments"])
        assert await client.recv() == "in two fragments"


async def test_a_path_without_a_websocket_is_refused_in_the_shape_of_its_api(serve, refused):
    running = await serve()
    status, body = await refused(running.websocket("/toy/nothing"))
    assert (status, '"toy_error":"not_found"' in body) == (404, True)
    status, body = await refused(running.websocket("/toy/echo"))
    assert (status, "No websocket" in body) == (404, True)


async def test_a_websocket_is_no_page(serve):
    running = await serve()
    answer = await running.http.get("/socket")
    assert (answer.status_code, answer.headers["upgrade"]) == (426, "websocket")
    assert answer.json()["toy_error"] == "upgrade_required"
    assert (await running.http.post("/socket")).status_code == 405


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        (b"Version: 13", b"Version: 8", 426),
        (b"Sec-WebSocket-Version: 13\r\n", b"", 400),
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"short", 400),
        (b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b"", 400),
        (b"GET ", b"PUT ", 405),
    ],
)
async def test_a_wrong_handshake_is_refused_and_the_connection_goes_on(
    serve, handshake, old, new, status
):
    running = await serve()
    client = await running.connect(handshake.replace(old, new))
    assert (await client.answer()).status == status
    client.send(handshake)
    assert (await client.answer()).status == 101


async def test_a_handshake_with_a_body_is_refused(serve, handshake):
    """Its body, or what follows it too early, is never read as messages."""
    running = await serve()
    length = b"Content-Length: 11\r\n\r\n"
    client = await running.connect(handshake[:-2] + length + b"\x81\x85\0\0\0\0hello")
    assert (await client.answer()).status == 400
    assert await client.rest() == b""
    client = await running.connect(handshake + b"\x81\x85\0\0\0\0hello")
    assert (await client.answer()).status == 400
    assert await client.rest() == b""
    assert running.toy.sockets.callers == []


async def test_only_pages_that_may_ask_connect(serve, handshake, refused):
    running = await serve(allowed_origins=("https://chat.lan",))
    assert (await refused(running.websocket("/socket", origin="https://evil.example")))[0] == 403
    async with running.websocket("/socket", origin="https://chat.lan") as client:
        await client.send("hello")
        assert await client.recv() == "hello"
    other = await running.connect(handshake.replace(b"Host: x", b"Host: rebound.example"))
    assert (await other.answer()).status == 403


# --- keys


async def test_a_handshake_without_a_key_is_refused(serve, refused):
    running = await serve()
    running.refusal = UnauthorizedError("No key.")
    for path in ("/socket", "/nothing"):
        assert (await refused(running.websocket(path)))[0] == 401
    running.refusal = WrongKeyError(0)
    assert (await refused(running.websocket("/later")))[0] == 401
    running.refusal = ForbiddenError("Not you.")
    assert (await refused(running.websocket("/later")))[0] == 403


@pytest.fixture
def door(tmp_path, serve):
    """Start a server with a key; yields it and the key."""

    async def start(scope="inference", **settings):
        running = await serve(**settings)
        file = KeyFile(tmp_path)
        token = file.add("ann", (scope,))
        table = SurfaceTable()
        table.replace(running.shell.app.served)
        running.door = Door(True, Keyring(file), table.answering, lambda _: None)
        return running, token, file

    return start


async def test_a_key_may_come_in_the_first_message(door):
    running, token, _ = await door()
    async with running.websocket("/later") as client:
        await client.send(token)
        assert await client.recv() == "welcome"
        await client.send("hello")
        assert await client.recv() == "hello"
    assert [request.key for request in running.toy.sockets.callers] == ["ann"]


async def test_a_key_in_the_headers_counts_and_the_message_does_not(door):
    running, token, _ = await door()
    async with running.websocket("/later", key=token) as client:
        await client.send("some passkey of the client")
        assert await client.recv() == "welcome"


async def test_without_keys_any_message_will_do(serve):
    running = await serve()
    async with running.websocket("/later") as client:
        await client.send("some passkey of the client")
        assert await client.recv() == "welcome"


@pytest.mark.parametrize("path", ["/later", "/careless"])
async def test_a_wrong_key_in_a_message_is_refused(door, closed, path):
    running, _, _ = await door()
    async with running.websocket(path) as client:
        await client.send("wrong")
        await client.send("again")
        code, reason = await closed(client)
    assert code == 1008
    assert "key" in reason
    assert running.toy.sockets.callers == []


async def test_a_key_without_the_scope_of_the_surface_is_refused(door, refused, closed):
    running, token, _ = await door("disk")
    assert (await refused(running.websocket("/socket", key=token)))[0] == 403
    async with running.websocket("/later") as client:
        await client.send(token)
        assert (await closed(client))[0] == 1008


async def test_who_shows_no_key_is_closed(door, closed):
    running, _, _ = await door(header_timeout_s=0.1)
    async with running.websocket("/later") as client:
        assert (await closed(client))[0] == 1008


async def test_a_stranger_cannot_send_much(door, closed):
    running, _, _ = await door(max_header_bytes=1024)
    async with running.websocket("/later") as client:
        await client.send("x" * 1025)
        assert (await closed(client))[0] == 1009


async def test_a_key_that_is_removed_counts_no_more(serve):
    running = await serve()
    async with running.websocket("/socket") as client:
        await client.send("hello")
        assert await client.recv() == "hello"
        running.refusal = UnauthorizedError("No key.")
        await client.send("hello")
        assert await client.recv() == "error: unauthorized: No key."


# --- calls


async def test_each_call_has_a_line_in_the_log_and_so_has_the_socket(serve):
    running = await serve()
    running.key = "ann"
    with capture_logs() as lines:
        async with running.websocket("/socket") as client:
            for message in ("hello", "busy"):
                await client.send(message)
                await client.recv()
        await running.server.drain(10)
    hello, busy, socket = lines
    wanted = {"path": "/socket", "key": "ann", "method": "GET", "event": "request"}
    assert all(wanted.items() <= line.items() for line in lines)
    assert (hello["call"], hello["status"], hello["bytes"]) == ("hello", 200, 5)
    assert (busy["call"], busy["status"], busy["cause"]) == ("busy", 429, "queue_full")
    assert (socket["status"], socket["cause"], socket.get("call")) == (101, None, None)
    assert [line["request_id"] for line in (hello, busy)] == [
        f"{socket['request_id']}-{number}" for number in (1, 2)
    ]


async def test_the_line_of_a_call_has_the_models_that_answered(serve):
    running = await serve()
    with capture_logs() as lines:
        async with running.websocket("/socket") as client:
            await client.send("model")
            await client.recv()
    assert (lines[0]["model"], lines[0]["prompt_tokens"], lines[0]["outcome"]) == (
        "acme/m",
        7,
        "ok",
    )


@pytest.mark.parametrize("key", ["", "ann"])
async def test_a_call_takes_its_turn_as_an_http_request_does(serve, key):
    """One of a key counts to that key; one without a key counts alone."""
    running = await serve()
    running.key = key
    async with running.websocket("/socket") as first, running.websocket("/toy/socket") as second:
        for client in (first, first, second):
            await client.send("hello")
            await client.recv()
    sockets = running.toy.sockets
    assert len(set(sockets.shares)) == (1 if key else 3)
    assert [(one.path, one.key) for one in sockets.callers] == [
        ("/socket", key),
        ("/socket", key),
        ("/toy/socket", key),
    ]


async def test_an_error_is_told_and_the_socket_lives(serve):
    running = await serve()
    async with running.websocket("/socket") as client:
        await client.send("busy")
        assert await client.recv() == "error: queue_full: Full."
        await client.send("bug")
        assert (await client.recv()).startswith("error: internal_error")
        await client.send("hello")
        assert await client.recv() == "hello"


async def test_a_handler_that_fails_closes_its_socket(serve, closed):
    running = await serve()
    async with running.websocket("/broken") as client:
        code, reason = await closed(client)
    assert code == 1011
    assert "secret" not in reason


async def test_a_handler_closes_with_its_own_code(serve, closed):
    running = await serve()
    async with running.websocket("/socket") as client:
        await client.send("close")
        code, reason = await closed(client)
    assert code == 4001
    assert reason.startswith("enough ")


@pytest.mark.parametrize("is_abrupt", [False, True])
async def test_a_client_that_leaves_ends_its_calls(serve, is_abrupt):
    running = await serve()
    client = await running.websocket("/socket")
    await client.send("wait")
    await running.toy.slow.started.wait()
    if is_abrupt:
        client.transport.abort()
    await client.close()
    await running.toy.slow.cancelled.wait()
    await running.toy.sockets.ended.wait()


async def test_calls_run_side_by_side_up_to_a_bound(serve, monkeypatch, until):
    monkeypatch.setattr("lmx_kernel.http.websocket_calls.MAX_CALLS", 2)
    running = await serve()
    async with running.websocket("/socket") as client:
        for message in ("wait", "wait", "third"):
            await client.send(message)
        await until(lambda: len(running.toy.sockets.callers) == 2)
        running.toy.slow.finish.set()
        assert [await client.recv() for _ in range(3)] == ["done", "done", "third"]


async def test_endless_calls_leave_room_for_others(serve, monkeypatch):
    monkeypatch.setattr("lmx_kernel.http.websocket_calls.MAX_ENDLESS", 1)
    running = await serve()
    async with running.websocket("/socket") as client:
        for message in ("endless", "endless", "hello"):
            await client.send(message)
        assert (await client.recv()).startswith("error: unavailable")
        assert await client.recv() == "hello"


# --- routes


class Other:
    name, prefix, scope = "other", "/other", "admin"

    def __init__(self, path, plain=()):
        self.path, self.plain = path, plain

    def routes(self):
        return [(path, object()) for path in self.plain]

    def websocket_routes(self):
        return [WebSocketRoute(path=self.path, handler=print)]


@pytest.mark.parametrize("path", ["/toy/echo", "/socket", "/toy/socket/", "/health"])
def test_a_clash_of_routes_names_both(toy, health, path):
    with pytest.raises(RouteClashError, match=r"(toy|health).*other|other.*(toy|health)"):
        build_app([toy, Other(path)], health)


def test_a_path_with_fields_is_refused(health):
    with pytest.raises(SurfaceError, match=r"/other/\{id\} of other"):
        build_app([Other("/other/{id}")], health)


def test_a_websocket_within_another_surface_has_its_own_scope(health):
    first, second = Other("/a"), Other("/other/deep")
    second.name, second.prefix = "second", "/second"
    table = SurfaceTable()
    table.replace(build_app([first, second], health).served)
    assert table.owner("/other/deep") is second
    assert table.owner("/other") is first
    assert table.owner("/a") is first
